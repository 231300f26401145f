//! `dis train-classifier`.

use std::sync::Arc;

use anyhow::{Result, ensure};
use dis_data::{Check, DataKind, DataSpec, Dataset, Subset};
use dis_eval::classifier::{ClassifierOptions, train_classifier};

use crate::eval::args::ClassifierArgs;
use crate::places::Places;
use crate::places::parent_exists;
use crate::{device, memory, note, progress, say};

/// One image of this many is tested on where the data have no part for it.
const TENTH: usize = 10;

/// Trains a classifier and says how good it is.
pub fn run(args: &ClassifierArgs) -> Result<()> {
    ensure!(args.batch_size > 0, "--batch-size must be at least 1");
    ensure!(args.steps > 0, "--steps must be at least 1");
    parent_exists(&args.out)?;
    Places::default()
        .reads_data("--data", Some(&args.data))
        .reads_data("--test", args.test.as_deref())
        .writes("--out", Some(&args.out))
        .check()?;
    let spec: DataSpec = args.data.parse()?;
    let options = ClassifierOptions {
        steps: args.steps,
        batch_size: args.batch_size,
        lr: args.lr,
        flip: spec.flip,
        seed: args.seed,
        ..ClassifierOptions::default()
    };
    let cpu = device::open_cpu(&args.device)?;
    let (train, test) = cpu.install(|| parts(args, &spec))?;
    note!("training on {}", train.describe());
    note!("testing on {}", test.describe());
    let pictures = 2 * memory::images(args.batch_size, train.shape());
    memory::check("--batch-size", args.batch_size, pictures)?;
    let bar = progress::classifier(args.steps);
    let trained = cpu.install(|| {
        train_classifier(&cpu, train, &*test, options, &mut |step, loss| {
            bar.set_position(step);
            bar.set_message(format!("loss {loss:.4}"));
        })
    });
    bar.finish_and_clear();
    let trained = trained?;
    trained.save(&args.out)?;
    let out = args.out.display();
    say!(
        "{:.2} % of {} test images are labelled right; {out} is for: dis eval --features \
         classifier:{out}",
        100.0 * trained.info.test_accuracy,
        trained.info.test_images
    )
}

/// What is trained on, and what is tested on.
fn parts(args: &ClassifierArgs, spec: &DataSpec) -> Result<(Arc<dyn Dataset>, Arc<dyn Dataset>)> {
    let check = Check {
        skip_bad: args.skip_bad,
        ..Check::default()
    };
    let (train, _) = progress::checked(spec, &check)?;
    if let Some(test) = &args.test {
        let (test, _) = progress::checked(&test.parse()?, &check)?;
        return Ok((train, test));
    }
    let other = match (&spec.kind, spec.split.as_deref()) {
        (DataKind::DigitsTrain, _) => Some(DataSpec::new(DataKind::DigitsHeldOut)),
        (DataKind::Idx(_) | DataKind::Cifar10(_), None | Some("train")) => Some(DataSpec {
            split: Some("test".into()),
            ..spec.clone()
        }),
        _ => None,
    };
    // Files of one split only have no other part.
    if let Some(test) = other.and_then(|other| dis_data::open(&other).ok()) {
        return Ok((train, test));
    }
    ensure!(
        train.len() >= 2 * TENTH,
        "{}: too few images to train and test on; give others with --test",
        args.data
    );
    let (test, train) = Subset::split(&train, train.len() / TENTH, args.seed)?;
    Ok((Arc::new(train), Arc::new(test)))
}
