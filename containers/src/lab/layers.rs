//! Lesson 16: what each instruction of the lesson's Dockerfile became, read from the image that was built.

use super::{
    connection::{ContextFile, busybox},
    engine::{Engine, IMAGE},
    stage::Stage,
};
use crate::error::{Context, Error, Result};
use futures_util::TryStreamExt;
use serde_json::Value;
use std::{collections::HashMap, io::Read};

/// The instructions after FROM, as the lesson's table names them.
const INSTRUCTIONS: [&str; 6] = ["COPY busybox", "RUN --install", "COPY app", "RUN rm", "RUN echo", "ENV"];

/// What one instruction became.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    is_layer: bool,
    bytes: u64,
    added: i64,
    whited_out: i64,
    cached_again: bool,
    cached_after_change: bool,
}

/// The experiment: one build for all columns.
pub fn layers(stage: &mut Stage, column: &str) -> Result<()> {
    if let Some(outcome) = Engine::missing() {
        return stage.not_run(outcome);
    }
    let dockerfile = include_str!("lessons/16-layers.md");
    let dockerfile = dockerfile.split("```dockerfile Dockerfile\n").nth(1).and_then(|rest| rest.split("```").next());
    let dockerfile = dockerfile.unwrap_or_default();
    let engine = stage.engine(|_| Ok(()))?;
    let found = engine.layers.get_or_init(|| look(&engine, dockerfile).map_err(|error| error.to_string()));
    let found = found.as_ref().map_err(|why| Error::Failed(why.clone()))?;
    let place = INSTRUCTIONS.iter().position(|name| *name == column);
    let Some(layer) = place.and_then(|place| found.get(place)) else {
        return Err(Error::Failed(format!("the image's history has {} steps", found.len())));
    };
    stage.describe("inception build");
    stage.observe("becomes a layer", layer.is_layer);
    stage.observe_in("size", layer.bytes.div_ceil(1024) as i64, "KiB");
    stage.observe_in("files added", layer.added, "files");
    stage.observe_in("whited out", layer.whited_out, "files");
    stage.observe("from cache, built again", layer.cached_again);
    stage.observe("from cache, app changed", layer.cached_after_change);
    Ok(())
}

fn look(engine: &Engine, dockerfile: &str) -> Result<Vec<Layer>> {
    let api = engine.api();
    let busybox = busybox()?;
    let build = |app: &str| {
        let files = [("busybox", &busybox[..]), ("app", app.as_bytes())];
        api.build(IMAGE, dockerfile, &files.map(|(name, content)| ContextFile { name, content }))
    };
    let steps = || -> Result<Vec<String>> {
        let history = api.wait("read the image's history", api.docker.image_history(IMAGE))?;
        Ok(history.into_iter().rev().map(|step| step.id).collect())
    };
    build("hello")?;
    let parts = api.wait("export the image", api.docker.export_image(IMAGE).try_collect::<Vec<_>>())?;
    let mut found = read_image(&parts.concat())?;
    let first = steps()?;
    build("hello")?;
    let again = steps()?;
    build("hello, changed")?;
    let changed = steps()?;
    for (place, layer) in found.iter_mut().enumerate() {
        // A step from the cache is the same intermediate image.
        layer.cached_again = first.get(place).is_some() && first.get(place) == again.get(place);
        layer.cached_after_change = first.get(place).is_some() && first.get(place) == changed.get(place);
    }
    Ok(found)
}

/// The steps of a saved image, with what is in their layers.
fn read_image(archive: &[u8]) -> Result<Vec<Layer>> {
    let mut files: HashMap<String, Vec<u8>> = HashMap::new();
    let mut tar = tar::Archive::new(archive);
    for entry in tar.entries().doing("read the image")? {
        let mut entry = entry.doing("read the image")?;
        let path = entry.path().doing("read the image")?.to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).doing("read the image")?;
        files.insert(path, content);
    }
    let json = |path: &str| -> Result<Value> {
        let content = files.get(path).ok_or_else(|| Error::Failed(format!("the saved image has no {path}")))?;
        serde_json::from_slice(content).map_err(|error| Error::Failed(format!("{path} of the saved image: {error}")))
    };
    let manifest = json("manifest.json")?;
    let config = json(manifest[0]["Config"].as_str().unwrap_or_default())?;
    let mut layers = manifest[0]["Layers"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut found = Vec::new();
    for step in config["history"].as_array().into_iter().flatten() {
        if step["empty_layer"] == true {
            found.push(Layer::default());
            continue;
        }
        let path = layers.next().unwrap_or_default();
        let content = files.get(path).ok_or_else(|| Error::Failed(format!("the saved image has no {path}")))?;
        found.push(read_layer(content)?);
    }
    Ok(found)
}

fn read_layer(content: &[u8]) -> Result<Layer> {
    let mut layer = Layer { is_layer: true, ..Layer::default() };
    let content: Box<dyn Read> = match content {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::GzDecoder::new(content)),
        plain => Box::new(plain),
    };
    for entry in tar::Archive::new(content).entries().doing("read a layer")? {
        let entry = entry.doing("read a layer")?;
        let path = entry.path().doing("read a layer")?.into_owned();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with(".wh.") {
            layer.whited_out += 1;
        } else if !entry.header().entry_type().is_dir() {
            layer.added += 1;
            layer.bytes += entry.size();
        }
    }
    Ok(layer)
}
