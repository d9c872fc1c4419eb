//! One attempt at one request. When to try again, and to whom at all, is the outbox's and the client factory's to say.

use std::time::Duration;

use reqwest::{
    Client, Method, Response,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, LINK},
};

use crate::{
    error::{Code, Refusal},
    protocol::{error::read_refusal, json::MAX_BODY, message::Address},
};

/// The content type of everything but what C2SP defines.
pub const JSON: &str = "application/json";

/// What became of one attempt to deliver a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Any 2xx. A body is due only from a first request, offer or transfer request; it may have no content type.
    Accepted {
        /// The status.
        status: u16,
        /// The body, at most [`MAX_BODY`] bytes.
        body: Vec<u8>,
    },
    /// 404, 408, 429, 5xx, a connection refused, closed or hanging: the peer may not be ready yet. Holds what happened.
    NotYet(String),
    /// Any other answer: the peer will not take this message.
    Refused {
        /// The status.
        status: u16,
        /// The peer's code, `unspecified` if it gave none.
        code: Code,
        /// The peer's reasons.
        reason: String,
    },
}

/// Posts `body` to `url` once.
pub async fn deliver(
    client: &Client,
    url: &str,
    authorization: Option<&str>,
    body: &[u8],
    timeout: Duration,
) -> Delivery {
    match ask(
        client,
        Ask {
            method: Method::POST,
            url,
            authorization,
            content_type: JSON,
            body: Some(body),
            limit: MAX_BODY,
            timeout,
        },
    )
    .await
    {
        Err(problem) => Delivery::NotYet(problem),
        Ok(Answer { status, body, .. }) => Delivery::answered(status, body),
    }
}

impl Delivery {
    /// What an answer means.
    pub fn answered(status: u16, body: Vec<u8>) -> Self {
        match status {
            200..300 => Self::Accepted { status, body },
            404 | 408 | 429 | 500.. => Self::NotYet(format!("the peer answered {status}")),
            _ => {
                let Refusal { code, sentence } = read_refusal(status, &body);
                Self::Refused { status, code, reason: sentence }
            }
        }
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// `GET` or `POST`.
    pub method: Method,
    /// Where.
    pub url: &'a str,
    /// `Authorization`, verbatim.
    pub authorization: Option<&'a str>,
    /// What the body is.
    pub content_type: &'a str,
    /// What to send.
    pub body: Option<&'a [u8]>,
    /// How many bytes of answer are taken at most.
    pub limit: usize,
    /// How long the whole may take, the answer's body included.
    pub timeout: Duration,
}

/// Any complete answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
    /// `Link` with `rel="next"` (RFC 8288), as it came; see [`Answer::next`].
    pub link: Option<String>,
}

impl Answer {
    /// The URL of the next catalog page, if it is below the same address: a peer does not send us elsewhere.
    pub fn next(&self, base: &Address) -> Option<String> {
        let link = self.link.as_deref()?;
        let url = if link.starts_with('?') { base.join(&format!("/catalog/request{link}")) } else { link.to_owned() };
        let rest = url.strip_prefix(base.as_str())?;
        (rest.starts_with(['/', '?']) && !rest.contains("..")).then_some(url)
    }

    /// The body as `T`, if the status is a success; else the peer's refusal.
    ///
    /// # Errors
    /// The peer's refusal, or `answer-invalid`.
    pub fn read<T>(&self, read: impl FnOnce(&[u8]) -> Result<T, super::Malformed>) -> Result<T, Refusal> {
        if !(200..300).contains(&self.status) {
            return Err(read_refusal(self.status, &self.body));
        }
        read(&self.body).map_err(|malformed| Refusal::new("answer-invalid", format!("the peer's answer: {malformed}")))
    }
}

/// Sends a request once and reads the answer, of any status, within its bounds.
///
/// # Errors
/// A sentence: the connection failed, hung, or the answer was larger than the limit.
pub async fn ask(client: &Client, ask: Ask<'_>) -> Result<Answer, String> {
    let timeout = ask.timeout;
    let mut request = client.request(ask.method, ask.url).timeout(ask.timeout).header(ACCEPT, "application/json");
    if let Some(authorization) = ask.authorization {
        request = request.header(AUTHORIZATION, authorization);
    }
    if let Some(body) = ask.body {
        request = request.header(CONTENT_TYPE, ask.content_type).body(body.to_vec());
    }
    let failed = |error: &reqwest::Error| problem(error, timeout);
    let mut response = request.send().await.map_err(|error| failed(&error))?;
    let (status, link) = (response.status().as_u16(), next_link(response.headers()));
    let body = bounded(&mut response, ask.limit).await.map_err(|cut| match cut {
        Cut::Failed(error) => failed(&error),
        Cut::TooLarge => format!("the peer's answer has more than {} bytes", ask.limit),
    })?;
    Ok(Answer { status, body, link })
}

enum Cut {
    Failed(reqwest::Error),
    TooLarge,
}

async fn bounded(response: &mut Response, limit: usize) -> Result<Vec<u8>, Cut> {
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(Cut::TooLarge);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Cut::Failed)? {
        if body.len() + chunk.len() > limit {
            return Err(Cut::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The error with its causes, which is where the reason is, without the URL, which may hold ids.
fn problem(error: &reqwest::Error, timeout: Duration) -> String {
    if error.is_timeout() {
        return format!("no answer within {} ms", timeout.as_millis());
    }
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    let what = if error.is_connect() { "cannot connect" } else { "the connection failed" };
    format!("{what}: {deepest}")
}

/// The target of `rel="next"` among `Link` headers.
fn next_link(headers: &HeaderMap) -> Option<String> {
    headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).find_map(
        |link| {
            let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
            let next = |parameter: &str| {
                parameter
                    .trim()
                    .strip_prefix("rel=")
                    .is_some_and(|rel| rel.trim_matches('"').eq_ignore_ascii_case("next"))
            };
            parameters.split(';').any(next).then(|| target.to_owned())
        },
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, RootCertStore, crypto::ring::default_provider};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A peer that reads one request and answers with `answer` as it stands, then closes; with none it hangs.
    async fn peer(answer: Option<Vec<u8>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/2025-1/negotiations/request", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let read = socket.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"POST /2025-1/negotiations/request HTTP/1.1"));
            match answer {
                Some(answer) => drop(socket.write_all(&answer).await),
                None => std::future::pending().await,
            }
        });
        url
    }

    fn client() -> Client {
        let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let redirects = reqwest::redirect::Policy::none();
        Client::builder().tls_backend_preconfigured(tls).redirect(redirects).no_proxy().build().unwrap()
    }

    async fn delivered_to(answer: Option<Vec<u8>>) -> Delivery {
        let url = peer(answer).await;
        deliver(&client(), &url, Some("token"), b"{}", Duration::from_millis(300)).await
    }

    async fn delivered(head: &str, body: &str) -> Delivery {
        let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        delivered_to(Some(answer.into_bytes())).await
    }

    #[tokio::test]
    async fn any_2xx_is_accepted_with_or_without_content_type() {
        let ack = Delivery::Accepted { status: 201, body: b"{\"state\":\"REQUESTED\"}".to_vec() };
        assert_eq!(delivered("201 Created", "{\"state\":\"REQUESTED\"}").await, ack);
        assert_eq!(delivered("200 OK", "").await, Delivery::Accepted { status: 200, body: vec![] });
    }

    #[tokio::test]
    async fn a_peer_that_is_not_ready_is_tried_again() {
        for head in ["404 Not Found", "408 Request Timeout", "429 Too Many Requests", "500 Oops", "503 Busy"] {
            assert!(matches!(delivered(head, "{}").await, Delivery::NotYet(_)), "{head}");
        }
        let Delivery::NotYet(closed) = delivered_to(Some(vec![])).await else { panic!("closed") };
        assert!(closed.starts_with("the connection failed"), "{closed}");
        let Delivery::NotYet(hanging) = delivered_to(None).await else { panic!("hanging") };
        assert_eq!(hanging, "no answer within 300 ms");
        let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".to_vec();
        assert!(matches!(delivered_to(Some(cut)).await, Delivery::NotYet(_)));

        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let nobody = deliver(&client(), &format!("http://{port}"), None, b"{}", Duration::from_secs(5)).await;
        let Delivery::NotYet(nobody) = nobody else { panic!("nobody listens") };
        assert!(nobody.starts_with("cannot connect"), "{nobody}");
    }

    #[tokio::test]
    async fn any_other_answer_refuses_with_the_peers_reason() {
        let body = r#"{"@type":"ContractNegotiationError","code":409,"reason":[{"message":"wrong state"}]}"#;
        let refused = Delivery::Refused { status: 409, code: Code::received("409"), reason: "wrong state".into() };
        assert_eq!(delivered("409 Conflict", body).await, refused);
        let Delivery::Refused { status: 302, code, .. } = delivered("302 Found\r\nlocation: http://x/", "").await
        else {
            panic!("a redirect is not followed")
        };
        assert_eq!(code.as_str(), "unspecified");
    }

    #[tokio::test]
    async fn an_answer_beyond_the_limit_is_not_read() {
        let announced = b"HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n".to_vec();
        let Delivery::NotYet(problem) = delivered_to(Some(announced)).await else { panic!("too large") };
        assert_eq!(problem, "the peer's answer has more than 1048576 bytes");
        let mut streamed = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        streamed.resize(streamed.len() + MAX_BODY + 1, b' ');
        let Delivery::NotYet(problem) = delivered_to(Some(streamed)).await else { panic!("too large") };
        assert_eq!(problem, "the peer's answer has more than 1048576 bytes");
    }

    #[test]
    fn the_next_page_is_found_and_stays_below_the_base() {
        let mut headers = HeaderMap::new();
        headers.append(LINK, "<https://p.example/dsp/catalog/request?page=0>; rel=\"prev\"".parse().unwrap());
        headers.append(LINK, "<https://p.example/dsp/catalog/request?page=2>; rel=\"next\"".parse().unwrap());
        let answer = |link: &str| Answer { status: 200, body: vec![], link: Some(link.into()) };
        let link = next_link(&headers).unwrap();
        let base = Address::parse("https://p.example/dsp").unwrap();
        assert_eq!(answer(&link).next(&base).unwrap(), "https://p.example/dsp/catalog/request?page=2");
        assert_eq!(answer("?page=2").next(&base).unwrap(), "https://p.example/dsp/catalog/request?page=2");
        for elsewhere in
            ["http://169.254.169.254/", "https://p.example/dspx", "https://p.example/dsp/../admin", "//x/dsp", "/dsp"]
        {
            assert_eq!(answer(elsewhere).next(&base), None, "{elsewhere}");
        }
    }
}
