//! A model's forward pass, recorded once for each size of batch and then repeated by the device.
//!
//! A recording holds addresses. So the image, the times and the conditions of a batch lie at fixed
//! places, which are overwritten before each repetition, and everything between them and the output
//! is memory of a pool that only the recording uses. The first call of a size runs as it is, which
//! fills that pool and loads what must be loaded; the second is recorded and repeated; what is left to
//! the host at each later one is a few copies and one launch.

use std::sync::Arc;

use dis_diffusion::{Error, Result};
use dis_model::ModelBackend;
use dis_model::{Condition, Ctx, DisModel, ModelInputs};
use dis_tensor::{Buffer, Layout, Reals, Tokens, TokensMut};

/// Sizes of batches that are kept: the whole, the doubled one of guidance, a last smaller one.
const KEPT: usize = 3;

/// Forward passes that are recorded where the device can.
#[derive(Debug)]
pub(crate) struct Repeated<B: ModelBackend> {
    allowed: bool,
    slots: Vec<Slot<B>>,
}

/// One size of batch.
#[derive(Debug)]
struct Slot<B: ModelBackend> {
    batch: usize,
    image: Reals<B>,
    inputs: Arc<ModelInputs<B>>,
    recorded: Option<(B::Recording, Reals<B>)>,
    /// The device, with memory that nothing else uses.
    apart: B,
}

impl<B: ModelBackend> Repeated<B> {
    pub(crate) fn new(backend: &B) -> Self {
        Self {
            allowed: backend.can_record(),
            slots: Vec::new(),
        }
    }

    pub(crate) fn allow(&mut self, allowed: bool) {
        self.allowed &= allowed;
        if !self.allowed {
            self.slots.clear();
        }
    }

    /// The model's output for a batch, in memory of `backend`.
    pub(crate) fn forward(
        &mut self,
        backend: &B,
        model: &DisModel,
        params: &Reals<B>,
        image: &Reals<B>,
        t: &[f64],
        condition: Condition<'_>,
    ) -> Result<Reals<B>> {
        if self.allowed {
            let at = self.slots.iter().position(|slot| slot.batch == t.len());
            let Some(at) = at else {
                return self.first(backend, model, params, image, t, condition);
            };
            let slot = &mut self.slots[at];
            slot.fill(backend, model, image, t, condition)?;
            if slot.recorded.is_none() {
                match slot.record(model, params) {
                    Ok(true) => {}
                    Ok(false) => self.give_up("it cannot"),
                    Err(error) => self.give_up(&error.to_string()),
                }
            }
            if let Some(Slot {
                recorded: Some((recording, out)),
                apart,
                ..
            }) = self.slots.get(at)
            {
                apart.replay(recording)?;
                return copied(backend, out);
            }
        }
        let inputs = model
            .inputs(backend, t, condition)
            .map_err(Error::network)?;
        model
            .forward_inputs(Ctx::new(backend, params), image, Arc::new(inputs))
            .map_err(Error::network)
    }

    /// The first call of a size: nothing is recorded yet.
    fn first(
        &mut self,
        backend: &B,
        model: &DisModel,
        params: &Reals<B>,
        image: &Reals<B>,
        t: &[f64],
        condition: Condition<'_>,
    ) -> Result<Reals<B>> {
        let apart = backend.apart();
        let inputs = model.inputs(&apart, t, condition).map_err(Error::network)?;
        let slot = Slot {
            batch: t.len(),
            image: copied(&apart, image)?,
            inputs: Arc::new(inputs),
            recorded: None,
            apart,
        };
        let out = slot.run(model, params)?;
        let out = copied(backend, &out)?;
        if self.slots.len() == KEPT {
            self.slots.remove(0);
        }
        self.slots.push(slot);
        Ok(out)
    }

    fn give_up(&mut self, why: &str) {
        tracing::warn!("the device does not record the network's launches: {why}");
        self.allowed = false;
        self.slots.clear();
    }
}

impl<B: ModelBackend> Slot<B> {
    /// Takes a batch's image, times and conditions to their fixed places.
    fn fill(
        &mut self,
        backend: &B,
        model: &DisModel,
        image: &Reals<B>,
        t: &[f64],
        condition: Condition<'_>,
    ) -> Result<()> {
        let Some(inputs) = Arc::get_mut(&mut self.inputs) else {
            return Err(Error::Invalid("inputs of a model still in use".into()));
        };
        model
            .rewrite_inputs(backend, inputs, t, condition)
            .map_err(Error::network)?;
        let all = Layout::vector(image.len());
        let to = TokensMut::new(&mut self.image, all);
        Ok(backend.copy(Tokens::new(image, all), to)?)
    }

    fn run(&self, model: &DisModel, params: &Reals<B>) -> Result<Reals<B>> {
        model
            .forward_inputs(
                Ctx::new(&self.apart, params),
                &self.image,
                Arc::clone(&self.inputs),
            )
            .map_err(Error::network)
    }

    /// Records the forward pass; false where the device cannot.
    fn record(&mut self, model: &DisModel, params: &Reals<B>) -> Result<bool> {
        self.recorded = self.apart.record(|| self.run(model, params))?;
        Ok(self.recorded.is_some())
    }
}

/// The same values in other memory.
fn copied<B: ModelBackend>(backend: &B, from: &Reals<B>) -> Result<Reals<B>> {
    let all = Layout::vector(from.len());
    let mut to = backend.alloc(from.len());
    backend.copy(Tokens::new(from, all), TokensMut::new(&mut to, all))?;
    Ok(to)
}
