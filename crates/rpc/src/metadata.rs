//! What a follower tells the leader of a call that it passes on.

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, header};

use crate::identity::{Peer, Subject};

const FORWARDED: HeaderName = HeaderName::from_static("forwarded_cert");
const NODE_ID: HeaderName = HeaderName::from_static("forwarded_cert_cn");
const ORGANIZATION: HeaderName = HeaderName::from_static("forwarded_cert_org");
const UNIT: HeaderName = HeaderName::from_static("forwarded_cert_ou");
const REMOTE_ADDR: HeaderName = HeaderName::from_static("remote_addr");
const REDIRECT: HeaderName = HeaderName::from_static("redirect");

/// The client as the forwarding manager describes it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Forwarded {
    pub(crate) node_id: String,
    pub(crate) organization: String,
    pub(crate) units: Vec<String>,
    pub(crate) addr: String,
}

/// `None`: the call comes from the peer itself. Only a manager's word counts; that is not checked
/// here.
pub(crate) fn forwarded(headers: &HeaderMap) -> Option<Forwarded> {
    let mut flags = headers.get_all(FORWARDED).iter();
    let (Some(flag), None) = (flags.next(), flags.next()) else {
        return None;
    };
    (flag == "true").then(|| Forwarded {
        node_id: first(headers, &NODE_ID),
        organization: first(headers, &ORGANIZATION),
        units: headers.get_all(UNIT).iter().map(text).collect(),
        addr: first(headers, &REMOTE_ADDR),
    })
}

/// The hops a call has made already, as Go prints a list.
pub(crate) fn redirects(headers: &HeaderMap) -> Option<String> {
    let hops: Vec<String> = headers.get_all(REDIRECT).iter().map(text).collect();
    (!hops.is_empty()).then(|| format!("[{}]", hops.join(" ")))
}

/// Replaces whatever the client claimed of itself by what its connection says. Blank values are
/// sent for a client without a certificate: without them the call would pass as the forwarding
/// manager's own.
pub(crate) fn forward(headers: &mut HeaderMap, peer: &Peer) {
    for name in [&FORWARDED, &NODE_ID, &ORGANIZATION, &UNIT, &REMOTE_ADDR] {
        headers.remove(name);
    }
    let (node_id, organization) = match &peer.subject {
        Some(Subject {
            node_id,
            organization,
            ..
        }) => (node_id.as_str(), organization.as_str()),
        None => ("", ""),
    };
    let addr = peer.addr.to_string();
    put(headers, FORWARDED, "true");
    put(headers, NODE_ID, node_id);
    put(headers, ORGANIZATION, organization);
    if let Some(subject) = &peer.subject {
        put(headers, UNIT, &subject.unit);
    }
    put(headers, REMOTE_ADDR, &addr);
    put(headers, REDIRECT, &addr);
    // Of the one connection, not of the call.
    headers.remove(header::HOST);
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // What no header can say (a newline in a name) becomes blank, which the leader refuses.
    let value = HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""));
    headers.append(name, value);
}

fn first(headers: &HeaderMap, name: &HeaderName) -> String {
    headers.get(name).map(text).unwrap_or_default()
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::OffsetDateTime;

    fn peer(subject: Option<Subject>) -> Peer {
        Peer {
            addr: "10.0.0.7:4000".parse().unwrap(),
            subject,
        }
    }

    #[test]
    fn what_a_client_claims_is_replaced_by_what_its_certificate_says() {
        let mut headers = HeaderMap::new();
        headers.append(NODE_ID, HeaderValue::from_static("somebody-else"));
        headers.append(UNIT, HeaderValue::from_static("swarm-manager"));
        let subject = Subject {
            organization: "c".into(),
            unit: "swarm-worker".into(),
            node_id: "w".into(),
            not_after: OffsetDateTime::UNIX_EPOCH,
        };
        forward(&mut headers, &peer(Some(subject)));
        let expected = Forwarded {
            node_id: "w".into(),
            organization: "c".into(),
            units: vec!["swarm-worker".into()],
            addr: "10.0.0.7:4000".into(),
        };
        assert_eq!(forwarded(&headers), Some(expected));
        assert_eq!(redirects(&headers).as_deref(), Some("[10.0.0.7:4000]"));
    }

    #[test]
    fn a_client_without_a_certificate_is_forwarded_as_nobody() {
        let mut headers = HeaderMap::new();
        forward(&mut headers, &peer(None));
        let nobody = forwarded(&headers).unwrap();
        assert_eq!((nobody.node_id.as_str(), nobody.units.len()), ("", 0));
        assert_eq!(headers.get(&NODE_ID).unwrap(), "");
    }
}
