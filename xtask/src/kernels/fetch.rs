//! The assembler from NVIDIA's Python wheel.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

const WHEEL: &str = "nvidia-cuda-nvcc-cu12==12.9.86";
/// Of the wheel for Linux on x86-64.
const SHA256: &str = "5d6a0d32fdc7ea39917c20065614ae93add6f577d840233237ff08e9a38f58f0";
const MEMBER: &str = "nvidia/cuda_nvcc/bin/ptxas";

/// Takes one member out of the only wheel in a folder. Arguments: folder, member, target.
const EXTRACT: &str = "
import glob, shutil, sys, zipfile
folder, member, target = sys.argv[1:]
[wheel] = glob.glob(folder + '/*.whl')
with zipfile.ZipFile(wheel) as z, z.open(member) as source, open(target, 'wb') as out:
    shutil.copyfileobj(source, out)
";

fn run(command: &mut Command, what: &str) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run Python to {what}"))?;
    ensure!(status.success(), "Python failed to {what}");
    Ok(())
}

/// Downloads the wheel, whose hash pip verifies, and puts its assembler into the target folder.
pub fn fetch(target: &Path) -> Result<PathBuf> {
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "the pinned wheel is for Linux on x86-64; set DIS_PTXAS to an assembler instead"
    );
    let folder = target.join("ptxas");
    let place = folder.join("ptxas");
    if place.is_file() {
        return Ok(place);
    }
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let requirements = folder.join("requirements.txt");
    std::fs::write(&requirements, format!("{WHEEL} --hash=sha256:{SHA256}\n"))?;
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--require-hashes",
        "--no-deps",
    ]);
    pip.args(["--only-binary", ":all:", "--dest"])
        .arg(&folder)
        .arg("-r")
        .arg(&requirements);
    run(&mut pip, "download the wheel")?;
    let partial = folder.join("ptxas.partial");
    let mut extract = Command::new("python3");
    extract
        .args(["-c", EXTRACT])
        .arg(&folder)
        .arg(MEMBER)
        .arg(&partial);
    run(&mut extract, "take the assembler out of the wheel")?;
    make_executable(&partial)?;
    std::fs::rename(&partial, &place)?;
    // The wheel has twice the size of the assembler.
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "whl") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(place)
}

#[cfg(unix)]
fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> Result<()> {
    Ok(())
}
