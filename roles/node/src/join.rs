//! Joining a network, on behalf of somebody who waits for the outcome.

use std::time::Duration;

use identity::NetworkId;
use tokio::{
    sync::{broadcast, mpsc},
    time::timeout,
};

use crate::{
    api::{ApiError, Event, Joined, Membership, NetworkStatus, Problem},
    fault::{Cause, Fault},
    network::{NetworkCommand, ask, stopping},
};

/// Whoever joins waits this long for the network's answer.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// A device before its network.
#[derive(Debug)]
pub(crate) struct Applicant {
    pub(crate) network: NetworkId,
    pub(crate) name: String,
    /// Where the controllers are, for errors.
    pub(crate) servers: String,
    pub(crate) commands: mpsc::Sender<NetworkCommand>,
    pub(crate) events: broadcast::Receiver<Event>,
}

impl Applicant {
    /// Waits for the network's answer. The network goes on trying after a [`Problem::Timeout`].
    pub(crate) async fn join(mut self) -> Result<Joined, ApiError> {
        let outcome = self.outcome().await;
        if outcome.as_ref().is_err_and(|error| error.problem == Problem::Refused)
            && self.status().await.is_some_and(|status| status.device_name.is_empty())
            && self.commands.send(NetworkCommand::Abandon).await.is_ok()
        {
            // The device was never let in, so that its keys are of no use.
            self.commands.closed().await;
        }
        outcome
    }

    async fn outcome(&mut self) -> Result<Joined, ApiError> {
        // A network that was joined before may have nothing new to say.
        let present = self.status().await.map_or(Membership::Joining, |status| status.membership);
        let membership = match present {
            Membership::Online | Membership::AwaitingApproval => present,
            Membership::Joining | Membership::Offline | Membership::Refused => {
                match timeout(JOIN_TIMEOUT, self.answer()).await {
                    Ok(answer) => answer?,
                    Err(_) => return Err(self.silence().await),
                }
            }
        };
        let advice = self.status().await.map_or_else(Vec::new, |status| status.advice);
        Ok(Joined {
            network: self.network.to_string(),
            name: self.name.clone(),
            membership,
            advice,
        })
    }

    async fn status(&self) -> Option<NetworkStatus> {
        ask(&self.commands, NetworkCommand::Status).await
    }

    async fn answer(&mut self) -> Result<Membership, ApiError> {
        let id = self.network.to_string();
        loop {
            let (membership, reason) = match self.events.recv().await {
                Ok(Event::Membership { network, membership, reason }) if network == id => {
                    (membership, reason)
                }
                Ok(
                    Event::Membership { .. }
                    | Event::Clock { .. }
                    | Event::Path { .. }
                    | Event::Security { .. },
                )
                | Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => {
                    return Err(stopping());
                }
            };
            match membership {
                Membership::Online | Membership::AwaitingApproval => return Ok(membership),
                Membership::Refused => {
                    let message = reason.unwrap_or_else(|| "the network refuses".to_owned());
                    return Err(ApiError { problem: Problem::Refused, message });
                }
                Membership::Joining | Membership::Offline => {}
            }
        }
    }

    /// Why nobody answered.
    async fn silence(&self) -> ApiError {
        let status = self.status().await;
        if let Some(status) = status.filter(|status| status.clock_offset_seconds.is_some()) {
            return ApiError { problem: Problem::Clock, message: status.advice.join("; ") };
        }
        no_answer(
            &self.servers,
            ask(&self.commands, NetworkCommand::Fault).await.flatten().as_ref(),
        )
    }
}

fn no_answer(servers: &str, fault: Option<&Fault>) -> ApiError {
    let Some(fault) = fault else {
        let message = format!(
            "no controller answers at {servers}; the node goes on trying; check whether a firewall \
             lets the server's port through"
        );
        return ApiError { problem: Problem::Timeout, message };
    };
    let problem = match fault.cause() {
        Cause::CertificateTime => Problem::Clock,
        Cause::Ended
        | Cause::Unresolved
        | Cause::Overlay
        | Cause::Silent
        | Cause::Unreachable
        | Cause::Closed
        | Cause::Foreign
        | Cause::Certificate
        | Cause::Proxy
        | Cause::ProxyCredentials
        | Cause::UnknownPath
        | Cause::TlsVersion
        | Cause::WrongPin => Problem::Timeout,
    };
    let message = format!("no controller answers; the node goes on trying; the last time: {fault}");
    ApiError { problem, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waited_in_vain_hears_the_last_failure_and_what_to_do() {
        let fault = Fault::unresolved("server.example:443");
        let error = no_answer("wss://server.example", Some(&fault));
        assert_eq!(error.problem, Problem::Timeout);
        assert!(error.message.contains("server.example:443 has no address"), "{error}");
        assert!(error.message.ends_with("name resolution"), "{error}");
        assert!(no_answer("wss://server.example", None).message.contains("wss://server.example"));
    }
}
