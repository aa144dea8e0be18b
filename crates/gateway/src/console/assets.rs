//! The console's files: inside the binary, under a name that changes with their content, so that browsers may keep them for ever.
//!
//! All of them share one hash in their path. So a script may import its neighbour by a relative path, and no page ever mixes files
//! of two releases.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::LazyLock,
};

use axum::{
    extract::Path,
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "assets/"]
struct Embedded;

/// Every file by its path, and the hash of all of them.
struct Files {
    hash: String,
    by_path: BTreeMap<String, Bytes>,
}

static FILES: LazyLock<Files> = LazyLock::new(|| {
    let read = |path: std::borrow::Cow<'static, str>| {
        let bytes = Bytes::from(Embedded::get(&path)?.data.into_owned());
        Some((path.into_owned(), bytes))
    };
    let by_path: BTreeMap<String, Bytes> = Embedded::iter().filter_map(read).collect();
    let mut hasher = DefaultHasher::new();
    by_path.hash(&mut hasher);
    Files { hash: format!("{:016x}", hasher.finish()), by_path }
});

/// Where a page finds one of the files.
pub(super) fn url(path: &str) -> String {
    format!("/console/assets/{}/{path}", FILES.hash)
}

/// `GET /console/assets/{hash}/{path}`. A page of another release asks under another hash and gets nothing: reloaded, it asks right.
pub(super) async fn file(Path((hash, path)): Path<(String, String)>) -> Response {
    const FOREVER: &str = "public, max-age=31536000, immutable";
    match FILES.by_path.get(&path).filter(|_| hash == FILES.hash) {
        Some(bytes) => {
            let nosniff = (HeaderName::from_static("x-content-type-options"), "nosniff");
            let headers = [(header::CONTENT_TYPE, kind(&path)), (header::CACHE_CONTROL, FOREVER), nosniff];
            (headers, bytes.clone()).into_response()
        }
        None => (StatusCode::NOT_FOUND, [(header::CACHE_CONTROL, "no-store")], "no such file").into_response(),
    }
}

fn kind(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("css") => "text/css; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_of_a_known_kind_and_vendored_ones_carry_their_licence() {
        assert!(FILES.by_path.len() > 8, "{:?}", FILES.by_path.keys());
        for path in FILES.by_path.keys() {
            assert_ne!(kind(path), "application/octet-stream", "{path}");
            if let Some(name) = path.strip_prefix("vendor/") {
                let library = name.split('-').next().unwrap();
                let library = library.trim_end_matches(".LICENSE.txt");
                assert!(FILES.by_path.contains_key(&format!("vendor/{library}.LICENSE.txt")), "{path} has no licence");
            }
        }
    }

    #[tokio::test]
    async fn a_file_is_kept_for_ever_under_its_hash_and_nowhere_else() {
        let ask = |hash: &str| file(Path((hash.to_owned(), "console.css".to_owned())));
        let found = ask(&FILES.hash).await;
        assert_eq!(found.status(), StatusCode::OK);
        assert_eq!(found.headers()[header::CONTENT_TYPE], "text/css; charset=utf-8");
        assert!(found.headers()[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"));
        let stale = ask("0000000000000000").await;
        assert_eq!(
            (stale.status(), &stale.headers()[header::CACHE_CONTROL]),
            (StatusCode::NOT_FOUND, &"no-store".parse().unwrap())
        );
    }
}
