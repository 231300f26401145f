//! Reads PTX files and prints what is wrong with them: `lint FILE ...`.

use std::process::ExitCode;

use dis_ptx_sim::Module;

fn main() -> ExitCode {
    let mut clean = true;
    for file in std::env::args().skip(1) {
        match std::fs::read_to_string(&file) {
            Err(error) => {
                eprintln!("{file}: {error}");
                clean = false;
            }
            Ok(text) => match Module::parse(&file, &text) {
                Err(error) => {
                    eprintln!("{error}");
                    clean = false;
                }
                Ok(module) => {
                    for lint in module.lint() {
                        println!("{lint}");
                        clean = false;
                    }
                }
            },
        }
    }
    if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
