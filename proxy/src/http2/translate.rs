//! Between the heads of HTTP/1.1 and those of HTTP/2 (RFC 9113 section 8).
//!
//! Requests of either version are decided by the same code over a [`RequestHead`]. What goes out to
//! an endpoint of HTTP/2 is made by `head`; responses are translated here, field by field.
//!
//! # Invariants
//! - Names are in lower case; nothing that is about a connection crosses.
//! - A field that the other version cannot carry is an error, never sent in part.
//!
//! # Not here
//! Streams, bodies.

use http::header::{CONTENT_LENGTH, DATE, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use ringway_router::{Field, HeaderEdits};

use crate::http1::body::Body;
use crate::http1::compose::Writer;
use crate::http1::fields::forbidden_in_trailers;
use crate::http1::request::{self, Fields, Http2Line, RequestFault, RequestHead};
use crate::http1::response::{self, ResponseHead};
use crate::limits::HEAD_FIELDS_MAX;
use crate::outcome::{Cause, Failure};
use crate::sys::block::Block;

/// Several `cookie` fields as the one that HTTP/1.1 has (RFC 9113 section 8.2.3); `None` unless
/// there are several.
#[must_use]
pub fn joined_cookie(headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut parts = headers.get_all(http::header::COOKIE).iter();
    let mut joined = parts.next()?.as_bytes().to_vec();
    let second = parts.next()?;
    for part in std::iter::once(second).chain(parts) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(part.as_bytes());
    }
    Some(joined)
}

/// The head of a request. `cookie` is from [`joined_cookie`]; `ended` says that no body follows.
///
/// # Errors
/// What is wrong with it; the stream is of no use then.
pub fn request_head<'f, 'b: 'f>(
    parts: &'b Parts,
    cookie: Option<&'b [u8]>,
    ended: bool,
    fields: &'f mut Fields<'b>,
) -> Result<RequestHead<'f>, RequestFault> {
    for (name, value) in &parts.headers {
        if cookie.is_some() && name == http::header::COOKIE {
            continue;
        }
        push(fields, name.as_str(), value.as_bytes())?;
    }
    if let Some(cookie) = cookie {
        push(fields, "cookie", cookie)?;
    }
    let line = Http2Line {
        method: parts.method.as_str(),
        target: parts.uri.path_and_query().map_or("", |target| target.as_str()),
        authority: parts.uri.authority().map(http::uri::Authority::as_str),
    };
    request::of_fields(line, fields.as_slice(), ended)
}

fn push<'b>(fields: &mut Fields<'b>, name: &'b str, value: &'b [u8]) -> Result<(), RequestFault> {
    fields.try_push(Field { name, value }).map_err(|_| RequestFault::TooManyFields)
}

/// A final response of an endpoint of HTTP/2 as the client gets it.
///
/// # Errors
/// When what the rule adds cannot be a field.
pub fn pass_on(
    parts: http::response::Parts,
    date: &[u8],
    edits: &HeaderEdits,
) -> Result<Response<()>, Failure> {
    let mut headers = parts.headers;
    if !edits.is_empty() {
        let dropped: Vec<HeaderName> =
            headers.keys().filter(|name| edits.drops(name.as_str())).cloned().collect();
        for name in dropped {
            headers.remove(name);
        }
        for (name, value) in edits.appended() {
            let (name, value) = entry(name, value.as_bytes())?;
            headers.append(name, value);
        }
    }
    if !headers.contains_key(DATE) {
        headers.insert(DATE, HeaderValue::from_bytes(date).map_err(|_| unfit("date"))?);
    }
    let mut response = Response::new(());
    *response.status_mut() = parts.status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Trailers without what may not stand there (RFC 9110 section 6.5.1).
#[must_use]
pub fn clean_trailers(mut fields: HeaderMap) -> HeaderMap {
    let forbidden: Vec<HeaderName> =
        fields.keys().filter(|name| forbidden_in_trailers(name.as_str())).cloned().collect();
    for name in forbidden {
        fields.remove(name);
    }
    fields
}

/// A final or interim response for HTTP/2. `date` is put in if the origin did not date it.
///
/// # Errors
/// When a field cannot be one of HTTP/2.
pub fn response(
    head: &ResponseHead<'_>,
    date: &[u8],
    edits: &HeaderEdits,
) -> Result<Response<()>, Failure> {
    let mut headers = HeaderMap::with_capacity(head.fields.len() + 2);
    let edited = !edits.is_empty();
    for (index, field) in head.fields.iter().enumerate() {
        let ends_here = head.dropped & (1 << index) != 0 || (edited && edits.drops(field.name));
        if !ends_here {
            let (name, value) = entry(field.name, field.value)?;
            headers.append(name, value);
        }
    }
    let bodiless = matches!(head.status, 100..200 | 204);
    let length = match head.body {
        Body::Length(length) => Some(length),
        Body::Done => head.claimed_length,
        Body::Chunked(_) | Body::Trailers | Body::UntilClose => None,
    };
    if let Some(length) = length.filter(|_| !bodiless) {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    if !head.dated && head.status >= 200 {
        headers.insert(DATE, HeaderValue::from_bytes(date).map_err(|_| unfit("date"))?);
    }
    for (name, value) in edits.appended() {
        let (name, value) = entry(name, value.as_bytes())?;
        headers.append(name, value);
    }
    let status = StatusCode::from_u16(head.status).map_err(|_| unfit("the status"))?;
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// The head of an answer of our own, composed as HTTP/1.1, and where its body begins in `answer`.
///
/// # Errors
/// When what the file says of it cannot be said in HTTP/2.
pub fn answer(answer: &[u8], to_head: bool) -> Result<(Response<()>, usize), Failure> {
    let end = memchr::memmem::find(answer, b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let mut fields = Fields::new_const();
    let head = response::parse(&answer[..end], &mut fields, to_head)
        .map_err(|fault| Failure::with(Cause::Internal, fault))?;
    Ok((response(&head, b"", &HeaderEdits::default())?, end))
}

fn entry(name: &str, value: &[u8]) -> Result<(HeaderName, HeaderValue), Failure> {
    let unfit = || unfit(name);
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unfit())?;
    Ok((name, HeaderValue::from_bytes(value).map_err(|_| unfit())?))
}

fn unfit(what: &str) -> Failure {
    Failure::with(Cause::UpstreamMalformed, format_args!("HTTP/2 cannot carry {what}"))
}

/// A trailer section of HTTP/1.1 as fields; `None` if there are none, or it is malformed.
///
/// # Errors
/// When it is no list of fields.
pub fn trailers(section: &[u8]) -> Result<Option<HeaderMap>, Failure> {
    let malformed = || Failure::with(Cause::UpstreamMalformed, "the trailer section");
    let mut slots = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
    let parsed = httparse::parse_headers(section, &mut slots);
    let Ok(httparse::Status::Complete((length, fields))) = parsed else {
        return Err(malformed());
    };
    if length != section.len() {
        return Err(malformed());
    }
    let mut map = HeaderMap::new();
    for field in fields.iter().filter(|field| !forbidden_in_trailers(field.name)) {
        let (name, value) = entry(field.name, field.value)?;
        map.append(name, value);
    }
    Ok((!map.is_empty()).then_some(map))
}

/// The end of a chunked body with `fields` as its trailer section. False if that does not fit.
#[must_use]
pub fn write_trailers(fields: Option<&HeaderMap>, out: &mut Block) -> bool {
    let mut writer = Writer::new(out);
    writer.bytes(b"0\r\n");
    for (name, value) in fields.into_iter().flatten() {
        if !forbidden_in_trailers(name.as_str()) {
            writer.field(name.as_str(), value.as_bytes());
        }
    }
    writer.bytes(b"\r\n");
    writer.finish().is_ok()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(request: http::request::Builder) -> Parts {
        request.body(()).unwrap().into_parts().0
    }

    fn head_of(parts: &Parts, ended: bool) -> Result<String, RequestFault> {
        let cookie = joined_cookie(&parts.headers);
        let mut fields = Fields::new_const();
        let head = request_head(parts, cookie.as_deref(), ended, &mut fields)?;
        let listed: Vec<String> = head
            .fields
            .iter()
            .enumerate()
            .filter(|(index, _)| head.dropped & (1 << index) == 0)
            .map(|(_, field)| format!("{}={}", field.name, String::from_utf8_lossy(field.value)))
            .collect();
        let body = match head.body {
            Body::Done => "none".to_owned(),
            Body::Length(length) => length.to_string(),
            Body::Chunked(_) => "unknown".to_owned(),
            _ => "other".to_owned(),
        };
        let query = head.query.map_or(String::new(), |query| format!("?{query}"));
        let (method, host, path) = (head.method, head.host, head.path);
        Ok(format!("{method} {host} {path}{query} [{}] {body}", listed.join(" ")))
    }

    fn get(uri: &str) -> http::request::Builder {
        Request::get(uri)
    }

    #[test]
    fn a_request_is_what_its_pseudo_fields_say() {
        let plain = parts(get("http://a.example:80/p?q=1").header("x", "y"));
        assert_eq!(head_of(&plain, true).unwrap(), "GET a.example:80 /p?q=1 [x=y] none");
        let post = parts(Request::post("https://a/").header("content-length", "5"));
        assert_eq!(head_of(&post, false).unwrap(), "POST a / [] 5");
        let post = parts(Request::post("https://a/").header("te", "trailers"));
        assert_eq!(head_of(&post, false).unwrap(), "POST a / [] unknown");
        let host = parts(get("http://a/").header("host", "A"));
        assert_eq!(head_of(&host, true).unwrap(), "GET a / [] none");
        let only_host = parts(get("/").header("host", "b"));
        assert_eq!(head_of(&only_host, true).unwrap(), "GET b / [] none");
    }

    #[test]
    fn cookies_are_joined_behind_the_other_fields() {
        let request = get("http://a/").header("cookie", "a=1").header("x", "y");
        let request = parts(request.header("cookie", "b=2").header("cookie", "c=3"));
        assert_eq!(head_of(&request, true).unwrap(), "GET a / [x=y cookie=a=1; b=2; c=3] none");
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        let two_names = parts(get("http://a/").header("host", "b"));
        assert_eq!(head_of(&two_names, true), Err(RequestFault::HostInvalid));
        let nameless = parts(get("/"));
        assert_eq!(head_of(&nameless, true), Err(RequestFault::HostMissing));
        let lengths = get("http://a/").header("content-length", "1").header("content-length", "2");
        assert_eq!(head_of(&parts(lengths), false), Err(RequestFault::ContentLength));
        let user = parts(get("http://user@a/"));
        assert_eq!(head_of(&user, true), Err(RequestFault::HostInvalid));
        let mut many = get("http://a/");
        for index in 0..=HEAD_FIELDS_MAX {
            many = many.header(format!("x-{index}"), "y");
        }
        assert_eq!(head_of(&parts(many), true), Err(RequestFault::TooManyFields));
    }

    #[test]
    fn a_response_loses_what_is_about_its_connection() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
                     Keep-Alive: 5\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nX-Odd: \xff\r\n\r\n";
        let mut fields = Fields::new_const();
        let head = response::parse(head, &mut fields, false).unwrap();
        let response = response(&head, b"now", &HeaderEdits::default()).unwrap();
        let headers = response.headers();
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
        assert_eq!(headers["content-length"], "3");
        assert_eq!(headers["x-odd"].as_bytes(), b"\xff");
        assert_eq!(headers["date"], "now");
        assert_eq!(headers.len(), 5, "{headers:?}");
    }

    #[test]
    fn an_answer_of_ours_is_read_back() {
        let text = b"HTTP/1.1 404 Not Found\r\nDate: x\r\nContent-Length: 2\r\n\r\nhi";
        let (response, body) = answer(text, false).unwrap();
        assert_eq!((response.status().as_u16(), &text[body..]), (404, &b"hi"[..]));
        assert_eq!(response.headers()["content-length"], "2");
    }

    #[test]
    fn trailers_cross_without_what_may_not_stand_there() {
        let section = b"Grpc-Status: 0\r\nContent-Length: 1\r\n\r\n";
        let map = trailers(section).unwrap().unwrap();
        assert_eq!((map.len(), &map["grpc-status"]), (1, &HeaderValue::from_static("0")));
        let mut out = Block::small();
        assert!(write_trailers(Some(&map), &mut out));
        assert_eq!(out.data(), b"0\r\ngrpc-status: 0\r\n\r\n");
        assert!(trailers(b"\r\n").unwrap().is_none());
        assert!(trailers(b"a b\r\n\r\n").is_err());
    }
}
