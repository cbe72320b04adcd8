//! A socket for the owner alone, and asking through it.

use axum::routing::{get, post};
use axum::{Json, Router, http::StatusCode};
use local_api::{BindError, Client, OwnerListener, RequestError};

fn router() -> Router {
    Router::new()
        .route("/double", post(|Json(number): Json<u32>| async move { Json(number * 2) }))
        .route("/refuse", get(|| async { (StatusCode::FORBIDDEN, Json("not today")) }))
        .route("/nonsense", get(|| async { "{" }))
}

#[tokio::test]
async fn requests_are_answered_refused_or_found_to_make_no_sense() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deeper").join("api.sock");
    let listener = OwnerListener::bind(&path).await.expect("binds");
    tokio::spawn(async move { axum::serve(listener, router()).await });
    let client = Client::new(&path);

    let answer: Result<u32, RequestError<String>> = client.post("/double", &21).await;
    assert_eq!(answer.expect("answered"), 42);
    let refused: Result<u32, RequestError<String>> = client.get("/refuse").await;
    assert!(matches!(refused, Err(RequestError::Refused(text)) if text == "not today"));
    let nonsense: Result<u32, RequestError<String>> = client.get("/nonsense").await;
    assert!(matches!(nonsense, Err(RequestError::Protocol)));
}

#[tokio::test]
async fn a_socket_in_use_is_not_taken_and_a_left_one_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("api.sock");
    let first = OwnerListener::bind(&path).await.expect("binds");
    assert!(matches!(OwnerListener::bind(&path).await, Err(BindError::InUse(_))));
    drop(first);
    assert!(!path.exists(), "it disappears with its owner");

    drop(std::os::unix::net::UnixListener::bind(&path).expect("a crash leaves a socket"));
    assert!(path.exists());
    OwnerListener::bind(&path).await.expect("nobody answers there");
}

#[tokio::test]
async fn nobody_listening_is_said_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let client = Client::new(folder.path().join("api.sock"));
    let answer: Result<(), RequestError<String>> = client.get("/").await;
    assert!(matches!(answer, Err(RequestError::NotRunning { .. })));
}
