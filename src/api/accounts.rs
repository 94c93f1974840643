//! `GET /api/accounts`: the accounts that the token may read, with their states.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Serialize;

use super::Api;
use crate::http::Problem;
use crate::registry::AccountStatus;

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Accounts {
    accounts: Vec<AccountStatus>,
}

pub(super) async fn list(State(api): State<Api>, headers: HeaderMap) -> Result<Json<Accounts>, Problem> {
    let authority = api.gate.reader(&headers).await?;
    if authority.is_anonymous() {
        return Err(Problem::unauthorized());
    }
    let mut accounts = api.registry.list();
    accounts.retain(|account| authority.may_read_account(&account.name));
    Ok(Json(Accounts { accounts }))
}
