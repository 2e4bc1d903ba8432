//! What the image routes move: load and save, import, pull and push; always as streams.

use super::{
    blocking,
    images::{named, tell},
    stream,
};
use crate::{
    engine::Engine,
    error::{Error, Result},
    image::{name::Name, registry},
};
use axum::{
    body::Body,
    extract::{Query, State},
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::{sync::oneshot, task::spawn_blocking};

pub async fn load(State(engine): State<Arc<Engine>>, body: Body) -> Response {
    let (lines, response) = stream::lines();
    let archive = stream::reader(body);
    spawn_blocking(move || {
        let told = lines.clone();
        let loaded = engine.images.load(archive, move |line| {
            // A client that went away does not undo a load.
            told.send(&json!({ "stream": line }));
        });
        match loaded {
            Ok(names) => {
                for name in names {
                    if let Ok(image) = engine.images.get(&name) {
                        tell(&engine, "load", &image.id, &name);
                    }
                }
            }
            Err(error) => lines.fail(&error),
        }
    });
    response
}

pub async fn save_several(
    State(engine): State<Arc<Engine>>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response> {
    let names = query.into_iter().filter(|(key, _)| key == "names").map(|(_, name)| name).collect();
    save(engine, names).await
}

pub async fn save(engine: Arc<Engine>, names: Vec<String>) -> Result<Response> {
    let save = blocking(move || engine.images.save(&names)).await?;
    let (mut writer, body) = stream::pipe();
    spawn_blocking(move || {
        let result = save.write(&mut writer);
        if let Err(error) = &result {
            log::error!("save: {error}");
        }
        writer.finish(result);
        drop(save);
    });
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], Body::from_stream(body)).into_response())
}

/// `docker import` (fromSrc) and `docker pull` (fromImage).
pub async fn create(
    State(engine): State<Arc<Engine>>,
    Query(query): Query<Vec<(String, String)>>,
    body: Body,
) -> Result<Response> {
    let value = |key: &str| {
        query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    };
    if let Some(image) = value("fromImage") {
        let name = named(image, value("tag"))?;
        return pull(engine, name).await;
    }
    match value("fromSrc") {
        Some("-") => {}
        Some(source) => {
            return Err(Error::NotImplemented(format!(
                "import from {source}: fetch the file, and import it from standard input (docker import -)"
            )));
        }
        None => return Err(Error::invalid("neither fromImage nor fromSrc is given")),
    }
    let name = value("repo").map(|repository| named(repository, value("tag"))).transpose()?;
    let changes: Vec<String> =
        query.iter().filter(|(key, _)| key == "changes").map(|(_, change)| change.clone()).collect();
    let config = crate::build::changed(&changes)?;
    let message = value("message").unwrap_or("Imported from -").to_owned();
    let (lines, response) = stream::lines();
    let archive = stream::reader(body);
    spawn_blocking(move || {
        let imported = engine.images.import(archive, config, &message).and_then(|image| {
            if let Some(name) = &name {
                engine.images.tag(&image.id, &name.tagged())?;
            }
            tell(&engine, "import", &image.id, &name.map_or_else(|| image.id.clone(), |name| name.tagged()));
            Ok(image.id)
        });
        match imported {
            Ok(id) => drop(lines.send(&json!({ "status": id }))),
            Err(error) => lines.fail(&error),
        }
    });
    Ok(response)
}

/// Progress of a pull or push as clients show it.
fn status_line(status: &str, id: Option<&str>) -> Value {
    match id {
        Some(id) => json!({ "status": status, "progressDetail": {}, "id": id }),
        None => json!({ "status": status }),
    }
}

/// The answer begins with the registry's first answer: until then, a failure has a status of its own.
async fn pull(engine: Arc<Engine>, name: Name) -> Result<Response> {
    let (lines, response) = stream::lines();
    let (begun, beginning) = oneshot::channel();
    tokio::spawn(async move {
        let begun = Mutex::new(Some(begun));
        let begin =
            |result: Result<()>| begun.lock().unwrap_or_else(PoisonError::into_inner).take().map(|it| it.send(result));
        let pulled = registry::pull(&engine.images, &name, |status, id| {
            begin(Ok(()));
            lines.send(&status_line(status, id));
        })
        .await;
        match pulled {
            Ok(image) => tell(&engine, "pull", &image.id, &name.to_string()),
            Err(error) => {
                let message = error.to_string();
                if begin(Err(error)).is_none() {
                    lines.fail(&Error::Failed(message));
                }
            }
        }
    });
    match beginning.await {
        Ok(Err(error)) => Err(error),
        _ => Ok(response),
    }
}

pub async fn push(engine: Arc<Engine>, name: Name) -> Result<Response> {
    let id = engine.images.get(&name.tagged())?.id;
    let (lines, response) = stream::lines();
    tokio::spawn(async move {
        let pushed = registry::push(&engine.images, &name, |status, id| {
            let _ = lines.send(&status_line(status, id));
        })
        .await;
        match pushed {
            Ok(()) => tell(&engine, "push", &id, &name.tagged()),
            Err(error) => lines.fail(&error),
        }
    });
    Ok(response)
}
