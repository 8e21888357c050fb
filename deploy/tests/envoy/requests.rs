//! Generated requests, and what of the answers is compared.

use super::side::Message;

/// A request, all but the number by which origins know it.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) host: String,
    pub(super) fields: Vec<(&'static str, &'static str)>,
    pub(super) body: Body,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    Nothing,
    Length(usize),
    Chunked(usize),
}

/// Hosts, most of them in forms that mean the same.
const HOSTS: [&str; 12] = [
    "main.example",
    "MAIN.example",
    "main.example:8080",
    "main.example.",
    "x.main.example",
    "x.y.main.example.:80",
    "a.deep.example",
    "A.deep.example:1",
    "b.deep.example",
    "deep.example",
    "alt",
    "nobody.example",
];

/// Paths; what is not normal is mixed in by [`disturbed`].
const PATHS: [&str; 36] = [
    "/",
    "/p",
    "/p/",
    "/pq",
    "/p/q",
    "/p/q/",
    "/p/q/r",
    "/p/qr",
    "/esc%2Fd",
    "/esc%2Fd/x",
    "/esc%20a",
    "/r/12",
    "/r/1f",
    "/s/1f",
    "/r/",
    "/r/a/b",
    "/only",
    "/only/exact",
    "/rw",
    "/rw/x.y",
    "/rw-root",
    "/rw-root/x/",
    "/rw-full/x",
    "/to-https/a",
    "/to-prefix/a/b",
    "/to-root",
    "/to-root/a",
    "/to-host/x",
    "/to-plain",
    "/answer",
    "/nothing",
    "/plain/x",
    "/edit",
    "/one",
    "/gone",
    "/other/a;b=c,d@e:f!$&'()*+=~",
];

const QUERIES: [&str; 10] = [
    "page=12",
    "page=x&page=1",
    "q=a%20b%2fc",
    "q=a%20b/c&q=x",
    "q=x&r",
    "r=1&&q=x",
    "q=x",
    "",
    "a=b?c=/d",
    "page=12&q=%41",
];

const FIELDS: [(&str, &str); 16] = [
    ("X-V", "2"),
    ("X-V", "17"),
    ("x-v", "other"),
    ("X-W", ""),
    ("X-A", "1"),
    ("x-a", "2"),
    ("X-Base", "yes"),
    ("X-Status", "404"),
    ("X-Status", "204"),
    ("X-Forwarded-For", "9.9.9.9"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Request-Id", "mine"),
    ("X-Forwarded-Client-Cert", "URI=spiffe://evil/x"),
    ("Forwarded", "for=9.9.9.9"),
    ("Cookie", "a=b; c=d"),
];

const METHODS: [&str; 10] =
    ["GET", "GET", "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PURGE", "ODD"];

/// Numbers that are the same in every run.
pub(super) struct Draw(pub(super) u64);

impl Draw {
    pub(super) fn below(&mut self, most: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % most as u64) as usize
    }

    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// True once in `times`.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(super) fn request(&mut self) -> Request {
        let method = self.of(&METHODS);
        let host = if self.once_in(2) { HOSTS[0] } else { self.of(&HOSTS) }.to_owned();
        let mut path = self.of(&PATHS).to_owned();
        if self.once_in(3) {
            path = disturbed(&path, self);
        }
        let query = self.once_in(3).then(|| self.of(&QUERIES).to_owned());
        let mut fields = Vec::new();
        for _ in 0..self.below(4) {
            let field: (&str, &str) = self.of(&FIELDS);
            let is_single = field.0 == "X-Status";
            if !(is_single && fields.iter().any(|(name, _)| *name == field.0)) {
                fields.push(field);
            }
        }
        let has_body = matches!(method, "POST" | "PUT" | "ODD");
        let body = match self.below(3) {
            0 if has_body => Body::Length(self.below(20_000)),
            1 if has_body => Body::Chunked(1 + self.below(5_000)),
            _ => Body::Nothing,
        };
        Request { method, path, query, host, fields, body }
    }
}

/// A path in another form: dots, escapes, doubled slashes.
fn disturbed(path: &str, draw: &mut Draw) -> String {
    let slash = path.rfind('/').unwrap_or(0);
    let (before, after) = path.split_at(slash);
    match draw.below(9) {
        0 => format!("{before}/.{after}"),
        1 => format!("{before}/x/..{after}"),
        2 => format!("{before}/%2e%2E/..{after}"),
        3 => format!("{before}/{after}"),
        4 => format!("/{path}"),
        5 => path.replace('r', "%72").replace('p', "%70"),
        6 => path.replace("%2F", "%2f"),
        7 => format!("{path}/%7Ex%2d%5fy"),
        _ => format!("{path}/.."),
    }
}

impl Request {
    pub(super) fn bytes(&self, test: &str) -> Vec<u8> {
        let query = self.query.as_ref().map_or(String::new(), |query| format!("?{query}"));
        let mut head = format!(
            "{} {}{query} HTTP/1.1\r\nHost: {}\r\nX-Test: {test}\r\nConnection: close\r\n",
            self.method, self.path, self.host
        );
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let filled = |length: usize| (0..length).map(|at| (at * 31 % 251) as u8);
        match self.body {
            Body::Nothing => [head.as_bytes(), b"\r\n"].concat(),
            Body::Length(length) => {
                head.push_str(&format!("Content-Length: {length}\r\n\r\n"));
                head.into_bytes().into_iter().chain(filled(length)).collect()
            }
            Body::Chunked(length) => {
                head.push_str(&format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n"));
                let chunk = head.into_bytes().into_iter().chain(filled(length));
                chunk.chain(*b"\r\n0\r\n\r\n").collect()
            }
        }
    }
}

/// What is compared of a request and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) status: u16,
    /// The answer's, unless a proxy made it for a failure.
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: String,
    pub(super) seen: Option<Seen>,
}

/// What an origin saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    origin: String,
    line: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

/// Fields of one connection, and those by which each proxy and moment differs.
const NOT_COMPARED: [&str; 10] = [
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "te",
    "date",
    "server",
    "x-request-id",
    "x-test",
    "ringway-cause",
];

fn compared(message: &Message) -> Vec<(String, String)> {
    let is_compared = |name: &str| !NOT_COMPARED.contains(&name) && !name.starts_with("x-envoy-");
    let fields = message.fields.iter().filter(|(name, _)| is_compared(name));
    let mut fields: Vec<(String, String)> = fields.cloned().collect();
    for (name, value) in &mut fields {
        if name == "location" {
            *value = without_own_port(value);
        }
    }
    fields.sort();
    fields
}

/// A URL without the port of its own scheme, which Envoy writes.
fn without_own_port(url: &str) -> String {
    for (scheme, port) in [("http://", ":80"), ("https://", ":443")] {
        if let Some(rest) = url.strip_prefix(scheme) {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let authority = authority.strip_suffix(port).unwrap_or(authority);
            return format!("{scheme}{authority}{path}");
        }
    }
    url.to_owned()
}

impl Outcome {
    pub(super) fn of(answer: &Message, seen: Option<(String, Message)>) -> Outcome {
        // A failure of the proxy's own: its words are its own, too.
        let is_failure = answer.field("x-origin").is_none() && answer.status() >= 400;
        let is_own = is_failure && answer.field("x-c").is_none();
        let seen = seen.map(|(origin, message)| {
            let fields = compared(&message);
            Seen { origin, line: message.line, fields, body: message.body }
        });
        Outcome {
            status: answer.status(),
            fields: if is_own { Vec::new() } else { compared(answer) },
            body: match is_own {
                true => String::new(),
                false => String::from_utf8_lossy(&answer.body).into_owned(),
            },
            seen,
        }
    }

    /// Whether the origin saw a field `name` that has `part` in it.
    pub(super) fn sees(&self, name: &str, part: &str) -> bool {
        let fields = self.seen.iter().flat_map(|seen| &seen.fields);
        fields.into_iter().any(|(other, value)| other == name && value.contains(part))
    }

    /// The rule that the origin was told of.
    pub(super) fn rule(&self) -> Option<String> {
        let fields = &self.seen.as_ref()?.fields;
        fields.iter().find(|(name, _)| name == "x-rule").map(|(_, value)| value.clone())
    }

    /// The same with the digits of escapes as a sidecar passes them on.
    pub(super) fn with_upper_case_escapes(&self) -> Outcome {
        let mut outcome = self.clone();
        outcome.body = upper_case_escapes(&outcome.body);
        for (_, value) in outcome.fields.iter_mut().filter(|(name, _)| name == "location") {
            *value = upper_case_escapes(value);
        }
        if let Some(seen) = &mut outcome.seen {
            seen.line = upper_case_escapes(&seen.line);
        }
        outcome
    }
}

/// In paths; queries stay.
fn upper_case_escapes(text: &str) -> String {
    let (path, query) = text.split_at(text.find('?').unwrap_or(text.len()));
    let mut parts = path.split('%');
    let mut upper = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        upper.push_str(&format!("%{}{rest}", digits.to_ascii_uppercase()));
    }
    upper + query
}
