//! Launch contracts of `patch.ptx`.

use crate::contract;
use crate::contract::{ContractInfo, Geometry, Params, Ptr, PtrMut, Ready};
use crate::error::{KernelError, Result};
use crate::mat::{Mat, MatMut, grid_limit, shape};

contract! {
    /// Images to patches.
    pub struct Patchify: PATCH, "dis_patchify" {
        image: Ptr<f32>,
        patches: PtrMut<f32>, patches_row: u32, patches_batch: u32,
        channels: u32, height: u32, width: u32, patch: u32, last: u32,
    }
}
contract! {
    /// Patches to images.
    pub struct Unpatchify: PATCH, "dis_unpatchify" {
        image: PtrMut<f32>,
        patches: Ptr<f32>, patches_row: u32, patches_batch: u32,
        channels: u32, height: u32, width: u32, patch: u32, last: u32,
    }
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[Patchify::INFO, Unpatchify::INFO];

/// Images and how they are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Images.
    pub batch: usize,
    /// Channels.
    pub channels: usize,
    /// Pixels.
    pub height: usize,
    /// Pixels.
    pub width: usize,
    /// Side of a patch; divides height and width.
    pub patch: usize,
    /// Columns ordered (row, column, channel) instead of (channel, row, column).
    pub channel_last: bool,
}

impl Grid {
    /// Checks the sizes; the shape of the patches.
    fn check(&self, kernel: &'static str, image_len: u64) -> Result<([usize; 3], Geometry)> {
        let p = self.patch;
        if p == 0 || !self.height.is_multiple_of(p) || !self.width.is_multiple_of(p) {
            let what = format!("{} x {} in patches of {p}", self.height, self.width);
            return Err(shape(kernel, what));
        }
        let plane = self.height * self.width;
        if plane > i32::MAX as usize {
            return Err(shape(kernel, format!("images of {plane} pixels")));
        }
        let needed = (self.batch * self.channels * plane) as u64;
        if needed > image_len {
            return Err(KernelError::OutOfBounds {
                kernel,
                name: "image",
                needed,
                len: image_len,
            });
        }
        let tokens = (self.height / p) * (self.width / p);
        let geometry = Geometry::new(
            [
                plane.div_ceil(256) as u32,
                grid_limit(kernel, "the number of channels", self.channels)?,
                grid_limit(kernel, "the number of samples", self.batch)?,
            ],
            [256, 1, 1],
        );
        Ok(([self.batch, tokens, p * p * self.channels], geometry))
    }
}

impl Patchify {
    /// Checks the operands.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(image: Ptr<f32>, grid: Grid, patches: MatMut) -> Result<Ready<Self>> {
        const NAME: &str = "dis_patchify";
        let (shape, geometry) = grid.check(NAME, image.len())?;
        patches.check_shape(NAME, "patches", shape)?;
        let kernel = Self {
            image,
            patches: patches.ptr,
            patches_row: patches.row_stride as u32,
            patches_batch: patches.batch_stride as u32,
            channels: grid.channels as u32,
            height: grid.height as u32,
            width: grid.width as u32,
            patch: grid.patch as u32,
            last: grid.channel_last.into(),
        };
        Ok(Ready::new(kernel, geometry))
    }
}

impl Unpatchify {
    /// Checks the operands.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(patches: Mat, grid: Grid, image: PtrMut<f32>) -> Result<Ready<Self>> {
        const NAME: &str = "dis_unpatchify";
        let (shape, geometry) = grid.check(NAME, image.len())?;
        patches.check_shape(NAME, "patches", shape)?;
        let kernel = Self {
            image,
            patches: patches.ptr,
            patches_row: patches.row_stride as u32,
            patches_batch: patches.batch_stride as u32,
            channels: grid.channels as u32,
            height: grid.height as u32,
            width: grid.width as u32,
            patch: grid.patch as u32,
            last: grid.channel_last.into(),
        };
        Ok(Ready::new(kernel, geometry))
    }
}
