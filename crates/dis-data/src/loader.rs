//! Batches read ahead by background threads.
//!
//! Thread `w` of `W` makes the batches of steps `start + w`, `start + w + W`, ... into its own
//! bounded queue, and the reader takes from the queues in turn: batches come in order without
//! sorting, and their content depends on the step alone, never on the threads.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::{DataError, Dataset, Draw, ImageShape, Order, Result, epoch_key, flips};

/// How a [`Loader`] reads.
#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// Seed of the run: decides order and flips.
    pub seed: u64,
    /// Images in a batch.
    pub batch_size: usize,
    /// Mirror half of the images, drawn anew in each epoch.
    pub flip: bool,
    /// First step to deliver.
    pub start_step: u64,
    /// Background threads; does not change what is delivered.
    pub workers: usize,
    /// Finished batches that each thread may hold ready.
    pub queue: usize,
}

impl LoaderOptions {
    /// One thread, two batches ahead, from step 0, no flips.
    pub fn new(seed: u64, batch_size: usize) -> Self {
        Self {
            seed,
            batch_size,
            flip: false,
            start_step: 0,
            workers: 1,
            queue: 2,
        }
    }
}

/// The images of one training step.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The step it belongs to.
    pub step: u64,
    /// Size of each image.
    pub shape: ImageShape,
    /// (batch, channels, height, width) in [-1, 1].
    pub images: Vec<f32>,
    /// Classes, one an image; `None` for a data set without classes.
    pub labels: Option<Vec<u32>>,
    /// Which image of the data set each is, and in which epoch.
    pub draws: Vec<Draw>,
}

impl Batch {
    /// Numbers of the images in their data set.
    pub fn indices(&self) -> impl Iterator<Item = usize> + '_ {
        self.draws.iter().map(|d| d.index)
    }
}

/// Makes the batch of one step on this thread: exactly what a [`Loader`] delivers for it.
///
/// # Errors
/// If the batch or the data set is empty, or an image cannot be read.
pub fn load_batch(dataset: &dyn Dataset, options: &LoaderOptions, step: u64) -> Result<Batch> {
    check(dataset, options)?;
    make_batch(
        dataset,
        options,
        &mut Order::new(options.seed, dataset.len()),
        step,
    )
}

fn check(dataset: &dyn Dataset, options: &LoaderOptions) -> Result<()> {
    let invalid = |what: String| Err(DataError::Invalid { what });
    if options.batch_size == 0 {
        return invalid("batch size must be at least 1, not 0".into());
    }
    if dataset.is_empty() || dataset.len() > u32::MAX as usize {
        return invalid(format!("{}: cannot make batches", dataset.describe()));
    }
    Ok(())
}

fn make_batch(
    dataset: &dyn Dataset,
    options: &LoaderOptions,
    order: &mut Order,
    step: u64,
) -> Result<Batch> {
    let shape = dataset.shape();
    let draws = order.batch(options.batch_size, step);
    let mut images = vec![0.0; draws.len() * shape.len()];
    for (draw, out) in draws
        .iter()
        .zip(images.chunks_exact_mut(shape.len().max(1)))
    {
        let flip = options.flip && flips(options.seed, draw.index, draw.epoch);
        let key = epoch_key(options.seed, draw.epoch);
        dataset.read_keyed(draw.index, flip, key, out)?;
    }
    let labels = match dataset.num_classes() {
        Some(_) => Some(
            draws
                .iter()
                .map(|d| {
                    dataset.label(d.index).ok_or_else(|| DataError::Invalid {
                        what: format!("{}: image {} has no label", dataset.describe(), d.index),
                    })
                })
                .collect::<Result<_>>()?,
        ),
        None => None,
    };
    Ok(Batch {
        step,
        shape,
        images,
        labels,
        draws,
    })
}

/// Batches in order of their steps, read ahead in the background. Dropping it ends its threads.
#[derive(Debug)]
pub struct Loader {
    /// One queue a thread; emptied after an error and on drop, which ends the threads.
    queues: Vec<Receiver<Result<Batch>>>,
    threads: Vec<JoinHandle<()>>,
    start: u64,
    step: u64,
}

impl Loader {
    /// Starts reading.
    ///
    /// # Errors
    /// If the batch or the data set is empty, or no thread can be started. Images that cannot be
    /// read are reported by [`Loader::next_batch`] at their step.
    pub fn new(dataset: Arc<dyn Dataset>, options: LoaderOptions) -> Result<Self> {
        check(&*dataset, &options)?;
        let workers = options.workers.max(1) as u64;
        let start = options.start_step;
        // Holds what is started so far, so that a failing start ends it.
        let mut loader = Self {
            queues: Vec::new(),
            threads: Vec::new(),
            start,
            step: start,
        };
        for worker in 0..workers {
            // The thread holds one finished batch itself while it waits for room.
            let (sender, receiver) = sync_channel(options.queue.saturating_sub(1));
            let (dataset, options) = (Arc::clone(&dataset), options.clone());
            let thread = std::thread::Builder::new()
                .name(format!("dis-data-{worker}"))
                .spawn(move || produce(&*dataset, &options, worker, workers, &sender))
                .map_err(|cause| DataError::Invalid {
                    what: format!("cannot start a data loading thread: {cause}"),
                })?;
            loader.queues.push(receiver);
            loader.threads.push(thread);
        }
        Ok(loader)
    }

    /// The step that [`Loader::next_batch`] will deliver.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The next step's batch; waits for it if need be.
    ///
    /// # Errors
    /// If one of its images cannot be read. The loader is finished then: later calls say that it
    /// stopped.
    pub fn next_batch(&mut self) -> Result<Batch> {
        let stopped = || Err(DataError::LoaderStopped { step: self.step });
        if self.queues.is_empty() {
            return stopped();
        }
        let turn = ((self.step - self.start) % self.queues.len() as u64) as usize;
        let result = self.queues[turn].recv().unwrap_or_else(|_| stopped());
        match &result {
            Ok(_) => self.step += 1,
            Err(_) => self.queues.clear(),
        }
        result
    }
}

fn produce(
    dataset: &dyn Dataset,
    options: &LoaderOptions,
    worker: u64,
    workers: u64,
    out: &SyncSender<Result<Batch>>,
) {
    let mut order = Order::new(options.seed, dataset.len());
    let mut step = options.start_step.saturating_add(worker);
    loop {
        let batch = make_batch(dataset, options, &mut order, step);
        let failed = batch.is_err();
        // A closed queue means that nobody is interested any more.
        if out.send(batch).is_err() || failed {
            return;
        }
        let Some(next) = step.checked_add(workers) else {
            return;
        };
        step = next;
    }
}

/// Ends after the first error, which it delivers.
impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.queues.is_empty() {
            None
        } else {
            Some(self.next_batch())
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.queues.clear();
        for thread in self.threads.drain(..) {
            // A panic in a data set was already reported as a stopped loader.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::{Sample, digits};

    /// Counts reads; fails at one image, or panics there.
    struct Fragile {
        bad: usize,
        panic: bool,
        reads: AtomicUsize,
    }

    impl Fragile {
        fn new(bad: usize, panic: bool) -> Arc<Self> {
            Arc::new(Self {
                bad,
                panic,
                reads: AtomicUsize::new(0),
            })
        }
    }

    impl Dataset for Fragile {
        fn len(&self) -> usize {
            10
        }
        fn shape(&self) -> ImageShape {
            ImageShape::from([1, 1, 2])
        }
        fn class_names(&self) -> &[String] {
            &[]
        }
        fn label(&self, _: usize) -> Option<u32> {
            None
        }
        fn read(&self, index: usize, _: bool, out: &mut [f32]) -> Result<()> {
            self.reads.fetch_add(1, Ordering::SeqCst);
            assert!(!(self.panic && index == self.bad));
            if index == self.bad {
                return Err(DataError::Invalid {
                    what: format!("image {index} is bad"),
                });
            }
            out.fill(index as f32);
            Ok(())
        }
        fn identity(&self) -> String {
            "fragile".into()
        }
        fn describe(&self) -> String {
            "fragile".into()
        }
    }

    #[test]
    fn any_number_of_threads_delivers_what_each_step_alone_gives() {
        let data: Arc<dyn Dataset> = Arc::new(digits().unwrap());
        for (workers, queue, batch_size) in [(1, 1, 7), (3, 2, 64), (2, 5, 2000)] {
            let mut options = LoaderOptions::new(9, batch_size);
            (options.workers, options.queue, options.flip) = (workers, queue, true);
            options.start_step = 25;
            let loader = Loader::new(Arc::clone(&data), options.clone()).unwrap();
            for (step, batch) in (25..32).zip(loader) {
                let batch = batch.unwrap();
                assert_eq!(batch.step, step);
                assert_eq!(batch, load_batch(&*data, &options, step).unwrap());
                let labels = batch.labels.as_ref().unwrap();
                for (j, draw) in batch.draws.iter().enumerate() {
                    let flip = flips(9, draw.index, draw.epoch);
                    let Sample { image, label } = data.sample(draw.index, flip).unwrap();
                    assert_eq!(&batch.images[j * 64..][..64], image);
                    assert_eq!(Some(labels[j]), label);
                }
            }
        }
    }

    #[test]
    fn errors_come_at_their_step_and_end_the_loader() {
        let mut options = LoaderOptions::new(3, 2);
        for workers in [1, 2, 4] {
            options.workers = workers;
            let data = Fragile::new(4, false);
            let bad = (0..5)
                .find(|&s| {
                    crate::batch_indices(3, 10, 2, s)
                        .iter()
                        .any(|d| d.index == 4)
                })
                .unwrap();
            let mut loader = Loader::new(data, options.clone()).unwrap();
            for step in 0..bad {
                let batch = loader.next_batch().unwrap();
                assert_eq!((batch.step, batch.labels), (step, None));
            }
            let error = loader.next_batch().unwrap_err();
            assert_eq!(error.to_string(), "image 4 is bad");
            assert!(matches!(
                loader.next_batch(),
                Err(DataError::LoaderStopped { .. })
            ));
            assert!(loader.next().is_none());
        }
    }

    #[test]
    fn a_panicking_data_set_is_an_error_not_a_hang() {
        let mut loader = Loader::new(Fragile::new(4, true), LoaderOptions::new(3, 10)).unwrap();
        assert!(matches!(
            loader.next_batch(),
            Err(DataError::LoaderStopped { step: 0 })
        ));
    }

    #[test]
    fn queue_is_bounded_and_dropping_stops_reading() {
        let data = Fragile::new(usize::MAX, false);
        let mut options = LoaderOptions::new(3, 1);
        (options.workers, options.queue) = (2, 3);
        let loader = Loader::new(data.clone(), options).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(data.reads.load(Ordering::SeqCst) <= 6);
        drop(loader);
        let after = data.reads.load(Ordering::SeqCst);
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert_eq!(data.reads.load(Ordering::SeqCst), after);
        assert_eq!(Arc::strong_count(&data), 1);
    }

    #[test]
    fn empty_batches_are_refused() {
        let data = Fragile::new(usize::MAX, false);
        assert!(Loader::new(data.clone(), LoaderOptions::new(0, 0)).is_err());
        assert!(load_batch(&*data, &LoaderOptions::new(0, 0), 0).is_err());
    }
}
