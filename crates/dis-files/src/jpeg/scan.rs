//! Counting the blocks of a scan, without their values: ISO/IEC 10918-1, annexes F and G, of Huffman
//! coding in sequential and progressive mode.

/// Samples of a block along a side.
const BLOCK: usize = 8;
/// Bits of a code that one look at a table resolves.
const LOOK: u32 = 9;
/// Longest code.
const LONGEST: u32 = 16;

/// A picture's planes.
pub(super) struct Frame {
    progressive: bool,
    height: usize,
    width: usize,
    pub(super) components: Vec<Component>,
}

/// A plane, such as the luma.
pub(super) struct Component {
    id: u8,
    horizontal: usize,
    vertical: usize,
    scanned: bool,
    /// For each block, which coefficients are not zero: what later scans of a progressive picture
    /// are long depends on it.
    nonzero: Vec<u64>,
}

impl Component {
    /// Whether any scan was of it.
    pub(super) fn was_scanned(&self) -> bool {
        self.scanned
    }
}

impl Frame {
    /// From the content of a segment; `None` where the coding is not followed here.
    pub(super) fn parse(code: u8, content: &[u8]) -> Option<Self> {
        let progressive = match code {
            0xc0 | 0xc1 => false,
            0xc2 => true,
            _ => return None,
        };
        let (&[_, h1, h0, w1, w0, count], list) = content.split_first_chunk()?;
        let side = |high, low| usize::from(u16::from_be_bytes([high, low]));
        let components: Vec<Component> = list
            .as_chunks::<3>()
            .0
            .iter()
            .take(usize::from(count))
            .map(|&[id, sampling, _]| Component {
                id,
                horizontal: usize::from(sampling >> 4),
                vertical: usize::from(sampling & 15),
                scanned: false,
                nonzero: Vec::new(),
            })
            .collect();
        let sampled =
            |c: &Component| (1..=4).contains(&c.horizontal) && (1..=4).contains(&c.vertical);
        let (height, width) = (side(h1, h0), side(w1, w0));
        let good = height > 0 && width > 0 && components.len() == usize::from(count);
        (good && count > 0 && components.iter().all(sampled)).then_some(Self {
            progressive,
            height,
            width,
            components,
        })
    }

    /// Columns and rows of the blocks of a component, without those that only fill up.
    fn blocks(&self, component: &Component) -> (usize, usize) {
        let most = |side: fn(&Component) -> usize| self.components.iter().map(side).max();
        let (h, v) = (most(|c| c.horizontal), most(|c| c.vertical));
        let blocks = |length: usize, factor: usize, most: Option<usize>| {
            (length * factor)
                .div_ceil(most.unwrap_or(1))
                .div_ceil(BLOCK)
        };
        (
            blocks(self.width, component.horizontal, h),
            blocks(self.height, component.vertical, v),
        )
    }

    /// Units of a scan of several components: a rectangle of blocks of each.
    fn units(&self) -> usize {
        let h = self.components.iter().map(|c| c.horizontal).max();
        let v = self.components.iter().map(|c| c.vertical).max();
        let units = |length: usize, most: Option<usize>| length.div_ceil(BLOCK * most.unwrap_or(1));
        units(self.width, h) * units(self.height, v)
    }
}

/// Codes of one Huffman table.
#[derive(Clone, Default)]
struct Table {
    /// By the next bits: length and symbol of the code that they begin with; length 0 if longer.
    look: Vec<(u8, u8)>,
    /// By length: the first code, the number of codes, and where their symbols begin.
    lengths: [(u32, u32, usize); LONGEST as usize + 1],
    symbols: Vec<u8>,
}

impl Table {
    fn new(counts: &[u8; LONGEST as usize], symbols: &[u8]) -> Self {
        let mut table = Self {
            look: vec![(0, 0); 1 << LOOK],
            symbols: symbols.to_vec(),
            ..Self::default()
        };
        let (mut code, mut first) = (0u32, 0);
        for (length, &count) in (1..=LONGEST).zip(counts) {
            table.lengths[length as usize] = (code, u32::from(count), first);
            for i in 0..u32::from(count) {
                let symbol = table.symbols.get(first + i as usize).copied();
                if let (Some(shift), Some(symbol)) = (LOOK.checked_sub(length), symbol) {
                    let start = ((code + i) as usize) << shift;
                    let end = (start + (1 << shift)).min(table.look.len());
                    if let Some(entries) = table.look.get_mut(start..end) {
                        entries.fill((length as u8, symbol));
                    }
                }
            }
            first += usize::from(count);
            code = (code + u32::from(count)) << 1;
        }
        table
    }
}

/// Huffman tables as defined so far: of DC values, then of AC values.
#[derive(Default)]
pub(super) struct Tables([[Table; 4]; 2]);

impl Tables {
    /// Takes in the content of a segment.
    pub(super) fn define(&mut self, mut content: &[u8]) {
        while let Some((&[place], rest)) = content.split_first_chunk() {
            let Some((counts, rest)) = rest.split_first_chunk() else {
                return;
            };
            let symbols = counts.iter().map(|&n| usize::from(n)).sum();
            let Some((symbols, rest)) = rest.split_at_checked(symbols) else {
                return;
            };
            let (class, number) = (usize::from(place >> 4), usize::from(place & 15));
            if let Some(table) = self.0.get_mut(class).and_then(|t| t.get_mut(number)) {
                *table = Table::new(counts, symbols);
            }
            content = rest;
        }
    }
}

/// One scan: some components, and in a progressive picture some of their bits.
pub(super) struct Scan {
    /// Index in the frame, table of DC, table of AC.
    components: Vec<(usize, usize, usize)>,
    /// Coefficients, in the order of the zigzag.
    first: u32,
    last: u32,
    /// Whether bits were there before.
    refines: bool,
}

/// Why counting stops.
enum Stop {
    /// No bits are left.
    Out,
    /// No code begins like the next bits: the data are damaged, or of a kind that is not known.
    Lost,
}

impl Scan {
    /// From the content of a segment; `None` if it does not fit the frame.
    pub(super) fn parse(content: &[u8], frame: &mut Frame) -> Option<Self> {
        let (&count, rest) = content.split_first()?;
        let (list, rest) = rest.split_at_checked(2 * usize::from(count))?;
        let &[first, last, bits] = rest.first_chunk()?;
        let mut components = Vec::new();
        for &[id, tables] in list.as_chunks::<2>().0 {
            let at = frame.components.iter().position(|c| c.id == id)?;
            let (dc, ac) = (usize::from(tables >> 4), usize::from(tables & 15));
            components.push((at, dc, ac));
        }
        let good = match frame.progressive {
            true => first <= last && last < 64 && (first == 0 || count == 1),
            false => true,
        };
        if !good || components.is_empty() {
            return None;
        }
        for &(at, ..) in &components {
            frame.components[at].scanned = true;
        }
        Some(Self {
            components,
            first: u32::from(first),
            last: u32::from(last),
            refines: bits >> 4 != 0,
        })
    }

    /// Whether the compressed data, at the beginning of `data`, are of fewer units than the scan
    /// has. The last unit may lack bits: some encoders leave out its padding and more.
    pub(super) fn is_cut_off(
        &self,
        frame: &mut Frame,
        tables: &Tables,
        restart_interval: usize,
        data: &[u8],
    ) -> bool {
        let units = match self.components[..] {
            [(at, ..)] => {
                let (columns, rows) = frame.blocks(&frame.components[at]);
                if frame.progressive {
                    frame.components[at].nonzero.resize(columns * rows, 0);
                }
                columns * rows
            }
            _ => frame.units(),
        };
        let mut bits = Bits::new(data);
        let mut end_of_band = 0;
        let mut unit = 0;
        while unit < units {
            if restart_interval > 0 && unit > 0 && unit.is_multiple_of(restart_interval) {
                end_of_band = 0;
                if !bits.restart() {
                    break;
                }
            }
            match self.unit(unit, frame, tables, &mut bits, &mut end_of_band) {
                Ok(()) => unit += 1,
                Err(Stop::Lost) => return false,
                // What is missing before a restart marker is the damage of a few blocks.
                Err(Stop::Out) if restart_interval > 0 && bits.at_restart() => {
                    unit = (unit / restart_interval + 1) * restart_interval;
                }
                Err(Stop::Out) => break,
            }
        }
        unit + 1 < units
    }

    /// Passes over one unit.
    fn unit(
        &self,
        unit: usize,
        frame: &mut Frame,
        tables: &Tables,
        bits: &mut Bits<'_>,
        end_of_band: &mut u32,
    ) -> Result<(), Stop> {
        let alone = self.components.len() == 1;
        for &(at, dc, ac) in &self.components {
            let component = &mut frame.components[at];
            let blocks = match alone {
                true => 1,
                false => component.horizontal * component.vertical,
            };
            let table = |class: usize, number: usize| tables.0[class].get(number).ok_or(Stop::Lost);
            for _ in 0..blocks {
                match (frame.progressive, self.first) {
                    (false, _) => {
                        bits.dc(table(0, dc)?)?;
                        bits.ac(table(1, ac)?)?;
                    }
                    (true, 0) if self.refines => bits.skip(1)?,
                    (true, 0) => bits.dc(table(0, dc)?)?,
                    (true, _) => {
                        let nonzero = component.nonzero.get_mut(unit).ok_or(Stop::Lost)?;
                        let (table, band) = (table(1, ac)?, self.first..=self.last);
                        match self.refines {
                            true => bits.refine(table, band, nonzero, end_of_band)?,
                            false => bits.begin(table, band, nonzero, end_of_band)?,
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// The bits of compressed data up to the next marker.
struct Bits<'a> {
    data: &'a [u8],
    held: u64,
    count: u32,
}

type Band = std::ops::RangeInclusive<u32>;

impl<'a> Bits<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            held: 0,
            count: 0,
        }
    }

    /// Takes bytes in as far as they fit. A byte 0xff has a zero behind it, or begins a marker.
    fn fill(&mut self) {
        while self.count <= 56 {
            let taken = match self.data {
                [0xff, 0, ..] => 2,
                [0xff, ..] | [] => return,
                [..] => 1,
            };
            self.held |= u64::from(self.data[0]) << (56 - self.count);
            self.count += 8;
            self.data = &self.data[taken..];
        }
    }

    fn at_restart(&self) -> bool {
        let fill = self.data.iter().take_while(|&&b| b == 0xff).count();
        fill > 0 && matches!(self.data.get(fill), Some(0xd0..=0xd7))
    }

    /// Goes on behind a restart marker, which must be next; whether it is.
    fn restart(&mut self) -> bool {
        (self.held, self.count) = (0, 0);
        loop {
            match self.data {
                [0xff, 0xd0..=0xd7, rest @ ..] => {
                    self.data = rest;
                    return true;
                }
                // Bytes that nothing asked for are left out, as libraries do.
                [0xff, 0, rest @ ..] => self.data = rest,
                [0xff, 0xff, ..] => self.data = &self.data[1..],
                [0xff, ..] | [] => return false,
                [_, rest @ ..] => self.data = rest,
            }
        }
    }

    fn take(&mut self, n: u32) -> Result<u32, Stop> {
        if self.count < n {
            self.fill();
        }
        if self.count < n {
            return Err(Stop::Out);
        }
        let value = self.held.checked_shr(64 - n).unwrap_or(0);
        self.held <<= n;
        self.count -= n;
        Ok(value as u32)
    }

    fn skip(&mut self, n: u32) -> Result<(), Stop> {
        self.take(n).map(|_| ())
    }

    fn symbol(&mut self, table: &Table) -> Result<u8, Stop> {
        if self.count < LONGEST {
            self.fill();
        }
        let look = (self.held >> (64 - LOOK)) as usize;
        let &(length, symbol) = table.look.get(look).ok_or(Stop::Lost)?;
        if length > 0 {
            return self.skip(u32::from(length)).map(|()| symbol);
        }
        for length in LOOK + 1..=LONGEST {
            let code = (self.held >> (64 - length)) as u32;
            let (first, count, symbols) = table.lengths[length as usize];
            if let Some(i) = code.checked_sub(first).filter(|&i| i < count) {
                self.skip(length)?;
                return table
                    .symbols
                    .get(symbols + i as usize)
                    .copied()
                    .ok_or(Stop::Lost);
            }
        }
        // Zeros stand for the bits behind the end.
        Err(match self.count < LONGEST {
            true => Stop::Out,
            false => Stop::Lost,
        })
    }

    /// A DC value.
    fn dc(&mut self, table: &Table) -> Result<(), Stop> {
        let size = self.symbol(table)?;
        self.skip(u32::from(size.min(16)))
    }

    /// All AC values of a block in sequential mode.
    fn ac(&mut self, table: &Table) -> Result<(), Stop> {
        let mut k = 1;
        while k < 64 {
            let symbol = self.symbol(table)?;
            let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            if size == 0 && run < 15 {
                break;
            }
            self.skip(size)?;
            k += run + 1;
        }
        Ok(())
    }

    /// The first bits of a band of AC values. A code may end the band of many blocks at once.
    fn begin(
        &mut self,
        table: &Table,
        band: Band,
        nonzero: &mut u64,
        end_of_band: &mut u32,
    ) -> Result<(), Stop> {
        if *end_of_band > 0 {
            *end_of_band -= 1;
            return Ok(());
        }
        let mut k = *band.start();
        while k <= *band.end() {
            let symbol = self.symbol(table)?;
            let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            if size == 0 && run < 15 {
                *end_of_band = (1 << run) - 1 + self.take(run)?;
                break;
            }
            self.skip(size)?;
            k += run;
            if size > 0 && k < 64 {
                *nonzero |= 1 << k;
            }
            k += 1;
        }
        Ok(())
    }

    /// One more bit of a band of AC values: of those that are not zero, and of some that were.
    fn refine(
        &mut self,
        table: &Table,
        band: Band,
        nonzero: &mut u64,
        end_of_band: &mut u32,
    ) -> Result<(), Stop> {
        let mut k = *band.start();
        while *end_of_band == 0 && k <= *band.end() {
            let symbol = self.symbol(table)?;
            let (mut run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            match size {
                0 if run < 15 => {
                    *end_of_band = (1 << run) + self.take(run)?;
                    break;
                }
                0 => {}
                _ => self.skip(1)?,
            }
            while k <= *band.end() {
                if *nonzero >> k & 1 == 1 {
                    self.skip(1)?;
                } else if run == 0 {
                    break;
                } else {
                    run -= 1;
                }
                k += 1;
            }
            if size > 0 && k <= *band.end() {
                *nonzero |= 1 << k;
            }
            k += 1;
        }
        if *end_of_band > 0 {
            while k <= *band.end() {
                self.skip(u32::from(*nonzero >> k & 1 == 1))?;
                k += 1;
            }
            *end_of_band -= 1;
        }
        Ok(())
    }
}
