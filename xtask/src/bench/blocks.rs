//! One block of DiS here, and one of DiT in PyTorch, of equal width, over more and more tokens.

use std::time::Instant;

use anyhow::Result;
use dis_ssm::{
    Block, BlockConfig, BlockInput, Ctx, MixerConfig, MixerInit, MixingConfig, ParamTable, TokenBuf,
};
use dis_tensor::random::{Purpose, Stream};
use dis_tensor::{Backend, Cpu, Layout, NormKind, Reals};
use serde_json::{Value, json};

use super::{Peer, median};

/// Width of the blocks, as in DiS-B and DiT-B, whose attention has twelve heads.
const WIDTH: usize = 768;

/// Times both at every length and prints a table.
pub(super) fn compare(
    peer: &mut Peer,
    threads: usize,
    lengths: &[usize],
    rounds: usize,
) -> Result<Vec<Value>> {
    println!("a block of width {WIDTH}, batch 1, {threads} threads; milliseconds");
    println!(
        "{:>8} {:>10} {:>10} {:>8} {:>14} {:>14}",
        "tokens", "DiS", "DiT", "ratio", "us a token", "KiB a token"
    );
    let mut all = Vec::new();
    for &length in lengths {
        let ours = Ours::new(threads, length)?;
        let name = format!("dit-block-{length}");
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..=rounds {
            let seconds = [ours.time()?, peer.time(&name, 1, threads)?];
            if round > 0 {
                times.iter_mut().zip(seconds).for_each(|(t, s)| t.push(s));
            }
        }
        let [dis, dit] = times.each_ref().map(|t| median(t));
        let bytes = ours.cpu.pool_stats().bytes_held - ours.fixed;
        println!(
            "{length:>8} {:>10.2} {:>10.2} {:>8.2} {:>14.2} {:>14.1}",
            1e3 * dis,
            1e3 * dit,
            dit / dis,
            1e6 * dis / length as f64,
            bytes as f64 / 1024.0 / length as f64,
        );
        all.push(json!({
            "tokens": length, "threads": threads, "dis": times[0], "dit": times[1], "bytes": bytes,
        }));
    }
    Ok(all)
}

struct Ours {
    cpu: Cpu,
    block: Block,
    params: Reals<Cpu>,
    /// Bytes of the weights.
    fixed: usize,
    hidden: Vec<f32>,
    length: usize,
}

impl Ours {
    fn new(threads: usize, length: usize) -> Result<Self> {
        let cpu = Cpu::with_threads(threads)?;
        let mut table = ParamTable::new();
        let block = Block::new(
            &mut table,
            "",
            &BlockConfig {
                mixer: MixingConfig::Mamba(MixerConfig::new(WIDTH)),
                norm: NormKind::Rms,
                skip: None,
                ada_ln: false,
                out_scale: 1.0,
                init: MixerInit::default(),
            },
        );
        let mut params = cpu.from_f32(&table.initial(0));
        cpu.prepare_weights(&mut params, table.products())?;
        let mut hidden = vec![0.0; length * WIDTH];
        Stream::new(0, Purpose::Test, 0, 0).fill_normal(&mut hidden);
        let fixed = cpu.pool_stats().bytes_held;
        Ok(Self {
            cpu,
            block,
            params,
            fixed,
            hidden,
            length,
        })
    }

    fn time(&self) -> Result<f64> {
        let layout = Layout::dense(1, self.length, WIDTH);
        let cpu = &self.cpu;
        let x = TokenBuf::<Cpu>::from_f32(cpu, layout, &self.hidden);
        let mut sum = TokenBuf::<Cpu>::new(cpu, layout);
        let mut out = TokenBuf::<Cpu>::new(cpu, layout);
        let input = BlockInput {
            residual: Some(x.view()),
            hidden: x.view(),
            skip: None,
            drop: None,
            condition: None,
        };
        let start = Instant::now();
        cpu.install(|| {
            let sum = Some(sum.view_mut());
            self.block
                .forward(Ctx::new(cpu, &self.params), input, sum, out.view_mut())
        })?;
        Ok(start.elapsed().as_secs_f64())
    }
}
