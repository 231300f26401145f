//! The compiled part of the Python package `dis-ssm`: float32 arrays of NumPy go in and out without copies where they
//! lie as kernels want them. What users see is written in Python around it (`dis_ssm/`).

mod arrays;
#[cfg(feature = "bench")]
mod bench;
mod conv;
mod diffusion;
mod errors;
mod evaluate;
mod files;
mod matrices;
mod pipeline;
mod problem;
mod scan;
mod scan_backward;
mod threads;
mod tiles;

use pyo3::prelude::*;

/// The instruction set that kernels run on.
#[pyfunction]
fn simd_level() -> String {
    format!("{:?}", dis_tensor::simd::level()).to_lowercase()
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(simd_level, module)?)?;
    module.add_function(wrap_pyfunction!(scan::scan, module)?)?;
    module.add_function(wrap_pyfunction!(scan::checkpoint_length, module)?)?;
    module.add_function(wrap_pyfunction!(scan_backward::scan_backward, module)?)?;
    module.add_function(wrap_pyfunction!(conv::conv, module)?)?;
    module.add_function(wrap_pyfunction!(conv::conv_backward, module)?)?;
    module.add_function(wrap_pyfunction!(conv::conv_update, module)?)?;
    module.add_function(wrap_pyfunction!(diffusion::sample, module)?)?;
    module.add_function(wrap_pyfunction!(evaluate::evaluate, module)?)?;
    module.add_function(wrap_pyfunction!(files::load_tensors, module)?)?;
    module.add_function(wrap_pyfunction!(files::save_tensors, module)?)?;
    #[cfg(feature = "bench")]
    module.add_function(wrap_pyfunction!(bench::library_seconds, module)?)?;
    module.add_class::<pipeline::Pipeline>()?;
    module.add_function(wrap_pyfunction!(threads::set_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(threads::get_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(threads::_after_fork, module)?)?;
    Ok(())
}
