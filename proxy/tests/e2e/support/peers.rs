//! Programs of others as peers of the proxy, and the files that they need.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::pki::{Authority, Identity, Issued, Wanted};
use super::{eventually, free_address};

/// A program that listens, and ends with the test.
pub struct Program {
    child: Child,
    pub address: SocketAddr,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    pub fn start(address: SocketAddr, command: &mut Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let program = Self { child: child.spawn().unwrap(), address };
        eventually("the peer listens", || TcpStream::connect(address).is_ok());
        program
    }
}

/// Where `.ci/install-tools` puts what is no package. A target folder that is not absolute is the
/// workspace's.
pub fn tools() -> PathBuf {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace.join(target).join("tools")
}

/// The program in the folder where services are, which is not on everybody's path.
pub fn service(name: &str) -> Command {
    let path = format!("/usr/sbin/{name}");
    Command::new(if Path::new(&path).exists() { path } else { name.to_owned() })
}

pub struct Files {
    pub authority: Authority,
    pub folder: tempfile::TempDir,
}

impl Files {
    pub fn new() -> Self {
        let files =
            Self { authority: Authority::new("mesh"), folder: tempfile::tempdir().unwrap() };
        files.put("ca.crt", &files.authority.pem);
        files
    }

    pub fn put(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Certificate and key of a member, each and both in one file.
    pub fn member(&self, name: &str, id: &str) -> Issued {
        let mut wanted = Wanted::member(id);
        wanted.dns.push("peer.example".to_owned());
        let issued = self.authority.issue(&wanted);
        self.put(&format!("{name}.crt"), &issued.certificate);
        self.put(&format!("{name}.key"), &issued.key);
        self.put(&format!("{name}.pem"), &format!("{}{}", issued.certificate, issued.key));
        issued
    }

    /// The lines of an identity in a proxy's file.
    pub fn identity(&self, name: &str) -> String {
        let folder = self.folder.path().join(format!("{name}-files"));
        let issued = Issued {
            certificate: std::fs::read_to_string(self.path(&format!("{name}.crt"))).unwrap(),
            key: std::fs::read_to_string(self.path(&format!("{name}.key"))).unwrap(),
            serial: rcgen::SerialNumber::from(1),
        };
        Identity::write(&folder, &issued, &self.authority.pem).config()
    }

    pub fn nginx(&self, text: &str) -> Program {
        let address = free_address();
        let folder = self.folder.path().join("nginx");
        std::fs::create_dir_all(&folder).unwrap();
        let at = folder.display();
        let text = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p;\n\
             fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n{text} }}\n"
        );
        let text = text.replace("LISTEN", &address.to_string()).replace("FILES", &self.path(""));
        let file = self.put("nginx.conf", &text);
        Program::start(address, service("nginx").arg("-p").arg(&folder).arg("-c").arg(file))
    }

    pub fn haproxy(&self, text: &str) -> Program {
        let address = free_address();
        let text = format!(
            "global\n  maxconn 100\ndefaults\n  mode http\n  timeout connect 5s\n  \
             timeout client 10s\n  timeout server 10s\n{text}"
        );
        let text = text.replace("LISTEN", &address.to_string()).replace("FILES", &self.path(""));
        let file = self.put("haproxy.cfg", &text);
        Program::start(address, service("haproxy").arg("-f").arg(file))
    }
}
