//! `cargo xtask kernels`: every PTX text is held against the source it is made from, linted, assembled for
//! every supported GPU and held against the committed budget of registers and shared memory.

mod budget;
mod expand;
mod fetch;
mod ptxas;
mod report;
mod sources;
mod version;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use dis_ptx_sim::Module;

use budget::Budget;
use ptxas::Ptxas;
use report::{Row, Table};

/// GPUs that the kernels are for.
const TARGETS: [u32; 6] = [80, 86, 89, 90, 100, 120];
/// Where the texts are, from the root of the repository.
const TEXTS: &str = "kernels/ptx";
const BUDGET: &str = "kernels/budget.toml";

/// Compares the PTX texts with the sources they are made from (kernels/ptx/*.ptx.in), lints them, assembles
/// them for sm_80 to sm_120 with warnings as errors, and compares registers and shared memory with
/// kernels/budget.toml. The assembler is looked for in DIS_PTXAS,
/// target/ptxas, CUDA_HOME or CUDA_PATH, PATH, /usr/local/cuda; without it, assembling is skipped.
#[derive(clap::Args)]
pub struct Args {
    /// Fail on any difference from the budget, not only where it is exceeded.
    #[arg(long, conflicts_with = "write_budget")]
    check: bool,
    /// Write the texts anew from their sources first.
    #[arg(long)]
    expand: bool,
    /// Get the assembler first, from the Python wheel of NVIDIA, pinned by its hash.
    #[arg(long)]
    fetch: bool,
    /// Fail if there is no assembler.
    #[arg(long)]
    require_ptxas: bool,
    /// Write what the kernels use now as the new budget.
    #[arg(long)]
    write_budget: bool,
    /// Also write the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A PTX text and its name.
struct Text {
    name: String,
    path: PathBuf,
    text: String,
    module: Module,
}

/// Returns whether all is well.
pub fn run(args: &Args) -> Result<bool> {
    let root = root()?;
    let target = target_dir(&root);
    if args.expand {
        sources::write(&root)?;
    }
    let mut ok = sources::check(&root)?;
    let texts = read_texts(&root)?;
    ok &= lint(&texts);
    if args.fetch {
        let place = fetch::fetch(&target)?;
        println!("fetched the assembler to {}", place.display());
    }
    let Some(ptxas) = Ptxas::find(&target)? else {
        let looked = "DIS_PTXAS, target/ptxas, CUDA_HOME, CUDA_PATH, PATH and /usr/local/cuda";
        println!("==================================================================");
        println!("SKIPPED: no ptxas in {looked}.");
        println!("Nothing was assembled. `cargo xtask kernels --fetch` gets the assembler.");
        println!("==================================================================");
        return Ok(ok && !args.require_ptxas);
    };
    println!("ptxas {} at {}", ptxas.version, ptxas.path.display());
    let supported = ptxas.supported(&TARGETS)?;
    for sm in TARGETS.iter().filter(|sm| !supported.contains(sm)) {
        println!("SKIPPED: this ptxas does not know sm_{sm}");
        ok &= !args.require_ptxas;
    }
    let cubins = target.join("kernels");
    let rows = assemble(&ptxas, &texts, &supported, &cubins)?;
    let table = Table::new(&texts, rows, &supported);
    table.print();
    println!("cubins in {}", cubins.display());
    if let Some(path) = &args.json {
        std::fs::write(
            path,
            serde_json::to_string_pretty(&table.json(&ptxas.version))?,
        )
        .with_context(|| format!("cannot write {}", path.display()))?;
    }
    ok &= table.errors();
    ok &= version::check(&ptxas, &texts)?;
    ok &= hold_to_budget(args, &root.join(BUDGET), &ptxas, &table, &supported)?;
    println!(
        "{}",
        if ok {
            "kernels: all is well"
        } else {
            "kernels: FAILED"
        }
    );
    Ok(ok)
}

fn hold_to_budget(
    args: &Args,
    path: &Path,
    ptxas: &Ptxas,
    table: &Table,
    supported: &[u32],
) -> Result<bool> {
    let now = Budget::of(&ptxas.version, table);
    if args.write_budget {
        ensure!(
            supported.len() == TARGETS.len(),
            "a budget needs an assembler for all targets"
        );
        std::fs::write(path, now.to_text())
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {}", path.display());
        return Ok(true);
    }
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {}; --write-budget makes one", path.display()))?;
    let committed = Budget::parse(&text).with_context(|| format!("{}", path.display()))?;
    let differences = committed.compare(&now, supported);
    for difference in &differences {
        println!("budget: {difference}");
    }
    if committed.ptxas != now.ptxas {
        // Register allocation differs between versions: only a failure to fit is told.
        println!(
            "budget: made with ptxas {}, this is {}",
            committed.ptxas, now.ptxas
        );
        return Ok(true);
    }
    let exceeded = differences.iter().any(|d| d.exceeds);
    Ok(if args.check {
        differences.is_empty()
    } else {
        !exceeded
    })
}

/// The root of the repository: here, above, or where this was built.
fn root() -> Result<PathBuf> {
    let here = std::env::current_dir()?;
    let built = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf);
    let mut candidates = here.ancestors().map(Path::to_path_buf).chain(built);
    candidates
        .find(|dir| dir.join(TEXTS).is_dir())
        .with_context(|| format!("no {TEXTS} here; run this in the repository"))
}

fn target_dir(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

fn read_texts(root: &Path) -> Result<Vec<Text>> {
    let folder = root.join(TEXTS);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.retain(|p| p.extension().is_some_and(|e| e == "ptx"));
    paths.sort();
    if paths.is_empty() {
        bail!("no PTX text in {}", folder.display());
    }
    let mut texts = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let module = Module::parse(&format!("{TEXTS}/{name}.ptx"), &text)?;
        texts.push(Text {
            name,
            path,
            text,
            module,
        });
    }
    Ok(texts)
}

/// Prints what the simulator's reader finds weak; returns whether it found nothing.
fn lint(texts: &[Text]) -> bool {
    let mut count = 0;
    for text in texts {
        for lint in text.module.lint() {
            println!("{lint}");
            count += 1;
        }
    }
    let entries: usize = texts.iter().map(|t| t.module.entries().count()).sum();
    println!(
        "{} texts with {entries} entries read, {count} lints",
        texts.len()
    );
    count == 0
}

/// Assembles all texts for all targets; each row is an entry on a target.
fn assemble(ptxas: &Ptxas, texts: &[Text], targets: &[u32], cubins: &Path) -> Result<Vec<Row>> {
    let mut jobs: Vec<(&Text, u32)> = Vec::new();
    for &sm in targets {
        std::fs::create_dir_all(cubins.join(format!("sm_{sm}")))?;
        jobs.extend(texts.iter().map(|text| (text, sm)));
    }
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let share = jobs.len().div_ceil(workers).max(1);
    let done: Vec<Result<Vec<Row>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = jobs
            .chunks(share)
            .map(|jobs| {
                scope.spawn(move || {
                    let mut rows = Vec::new();
                    for (text, sm) in jobs {
                        let cubin = cubins.join(format!("sm_{sm}/{}.cubin", text.name));
                        rows.extend(ptxas.assemble(&text.path, &text.name, *sm, &cubin)?);
                    }
                    Ok(rows)
                })
            })
            .collect();
        let failed = |_| Err(anyhow::anyhow!("a thread that assembles panicked"));
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(failed))
            .collect()
    });
    let mut rows = Vec::new();
    for part in done {
        rows.extend(part?);
    }
    Ok(rows)
}
