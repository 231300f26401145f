//! `cargo xtask emoji`: a folder of small colour pictures to train on, from the npm package
//! emoji-datasource-google (whose Google images are those of Noto Emoji, Apache License 2.0).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dis_data::crop::{Picture, center_crop};
use dis_data::grid::write_unmarked_png;
use serde::Deserialize;

/// Where the package keeps single pictures of 64 x 64 pixels.
const PICTURES: &str = "img/google/64";

/// Makes a folder with a folder for each category, pictures composited on white.
#[derive(clap::Args)]
pub struct Args {
    /// The unpacked package: `npm pack emoji-datasource-google`, then `tar xzf` it.
    #[arg(long, value_name = "DIR")]
    package: PathBuf,
    /// Side of the pictures, at most 64.
    #[arg(long, value_name = "N", default_value_t = 32)]
    size: usize,
    /// The folder to make.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// All in one folder, for a model without classes.
    #[arg(long)]
    flat: bool,
    /// Also the variants of skin tones: many near copies.
    #[arg(long)]
    skin_tones: bool,
}

/// An entry of emoji.json; other fields are not read.
#[derive(Deserialize)]
struct Emoji {
    short_name: String,
    category: String,
    image: String,
    has_img_google: bool,
    #[serde(default)]
    skin_variations: BTreeMap<String, Variation>,
}

#[derive(Deserialize)]
struct Variation {
    image: String,
    has_img_google: bool,
}

/// Makes the folder.
pub fn run(args: &Args) -> Result<bool> {
    if !(1..=64).contains(&args.size) {
        bail!("--size is {}, but must be 1 to 64", args.size);
    }
    let list = args.package.join("emoji.json");
    let text =
        fs::read_to_string(&list).with_context(|| format!("{}: cannot read", list.display()))?;
    let emoji: Vec<Emoji> = serde_json::from_str(&text)
        .with_context(|| format!("{}: not as expected", list.display()))?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for one in &emoji {
        let folder = if args.flat {
            String::new()
        } else {
            slug(&one.category)
        };
        let mut pictures = vec![(slug(&one.short_name), &one.image, one.has_img_google)];
        if args.skin_tones {
            pictures.extend(one.skin_variations.iter().map(|(tone, v)| {
                let name = slug(&format!("{} {tone}", one.short_name));
                (name, &v.image, v.has_img_google)
            }));
        }
        for (name, image, there) in pictures {
            if !there {
                continue;
            }
            let to = args.out.join(&folder);
            fs::create_dir_all(&to).with_context(|| format!("{}: cannot create", to.display()))?;
            let from = args.package.join(PICTURES).join(file_name(image)?);
            let picture = center_crop(&on_white(&from)?, args.size, args.size);
            write_unmarked_png(&to.join(format!("{name}.png")), &picture)?;
            *counts.entry(folder.clone()).or_default() += 1;
        }
    }
    let total: usize = counts.values().sum();
    for (folder, count) in counts {
        println!("{count:5}  {folder}");
    }
    println!("{total:5}  pictures in {}", args.out.display());
    Ok(total > 0)
}

/// A name without folders: the list comes from outside.
fn file_name(image: &str) -> Result<&Path> {
    let path = Path::new(image);
    match path.file_name() {
        Some(name) if name == path.as_os_str() => Ok(path),
        _ => bail!("emoji.json names the image {image:?}, which is no plain file name"),
    }
}

/// Letters, digits and hyphens, lower case.
fn slug(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            c if c.is_ascii_alphanumeric() => out.push(c.to_ascii_lowercase()),
            '+' => out.push_str("plus"),
            _ if out.is_empty() || out.ends_with('-') => {}
            _ => out.push('-'),
        }
    }
    out.trim_end_matches('-').to_string()
}

/// Reads a picture and puts it on a white ground.
fn on_white(path: &Path) -> Result<Picture> {
    let picture = image::open(path)
        .with_context(|| format!("{}: cannot read", path.display()))?
        .to_rgba8();
    let (width, height) = picture.dimensions();
    let bytes = picture
        .pixels()
        .flat_map(|p| {
            let [red, green, blue, alpha] = p.0;
            [red, green, blue].map(|level| over_white(level, alpha))
        })
        .collect();
    Ok(Picture {
        height: height as usize,
        width: width as usize,
        channels: 3,
        bytes,
    })
}

/// `alpha * level + (1 - alpha) * white`, rounded.
fn over_white(level: u8, alpha: u8) -> u8 {
    let (level, alpha) = (u32::from(level), u32::from(alpha));
    ((level * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn compositing_rounds_to_the_nearest_level() {
        for (level, alpha, expected) in [(0, 255, 0), (7, 0, 255), (0, 128, 127), (100, 51, 224)] {
            assert_eq!(over_white(level, alpha), expected);
        }
    }

    #[test]
    fn makes_folders_of_categories_and_refuses_paths() {
        let dir = tempfile::tempdir().unwrap();
        let package = dir.path().join("package");
        let pictures = package.join(PICTURES);
        fs::create_dir_all(&pictures).unwrap();
        let half = image::Rgba([255, 0, 0, 128]);
        image::RgbaImage::from_pixel(64, 64, half)
            .save(pictures.join("1.png"))
            .unwrap();
        let list = |image: &str| {
            format!(
                r#"[{{"short_name": "+1", "category": "People & Body", "image": "{image}", "has_img_google": true,
                    "skin_variations": {{"1F3FB": {{"image": "1.png", "has_img_google": true}}}}}},
                   {{"short_name": "gone", "category": "Flags", "image": "2.png", "has_img_google": false}}]"#
            )
        };
        let args = |flat, skin_tones, out: &str| Args {
            package: package.clone(),
            size: 32,
            out: dir.path().join(out),
            flat,
            skin_tones,
        };
        fs::write(package.join("emoji.json"), list("1.png")).unwrap();
        assert!(run(&args(false, false, "a")).unwrap());
        let made = image::open(dir.path().join("a/people-body/plus1.png")).unwrap();
        assert_eq!(made.to_rgb8().dimensions(), (32, 32));
        assert!(made.to_rgb8().pixels().all(|p| p.0 == [255, 127, 127]));
        assert!(!dir.path().join("a/flags").exists());
        assert!(run(&args(true, true, "b")).unwrap());
        assert!(dir.path().join("b/plus1-1f3fb.png").is_file());
        fs::write(package.join("emoji.json"), list("../1.png")).unwrap();
        let error = run(&args(false, false, "c")).unwrap_err().to_string();
        assert!(error.contains("../1.png"), "{error}");
    }
}
