//! What may stand between two servers that speak by WebSocket: a proxy that ends TLS, one that connects through.

use std::fs::File;
use std::io::BufReader;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use super::authority::Signed;

/// A proxy on a port of its own, for as long as it lives.
pub struct Between {
    /// Where it listens.
    pub address: SocketAddr,
    /// All bytes that went through, both ways, as it saw them.
    pub seen: Arc<Mutex<Vec<u8>>>,
    _runtime: Runtime,
}

impl Between {
    /// Ends TLS and goes on without, to `to`; takes `prefix` off the paths that are asked for.
    pub fn ending_tls(signed: &Signed, prefix: &'static str, to: SocketAddr) -> Self {
        let chain = CertificateDer::pem_reader_iter(BufReader::new(File::open(&signed.chain).unwrap()));
        let key = PrivateKeyDer::from_pem_file(&signed.key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(chain.map(Result::unwrap).collect(), key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::run(move |stream, seen| {
            let acceptor = acceptor.clone();
            async move {
                let mut near = BufStream::new(acceptor.accept(stream).await.ok()?);
                let mut far = TcpStream::connect(to).await.ok()?;
                let mut request = String::new();
                near.read_line(&mut request).await.ok()?;
                let stripped = request.replacen(&format!(" {prefix}/"), " /", 1);
                assert!(prefix.is_empty() || stripped != request, "{request} has no {prefix}");
                far.write_all(stripped.as_bytes()).await.ok()?;
                copy(near, far, seen).await
            }
        })
    }

    /// Connects to wherever it is asked to.
    pub fn connecting() -> Self {
        Self::run(|stream, seen| async move {
            let mut near = BufStream::new(stream);
            let (mut request, mut line) = (String::new(), String::new());
            near.read_line(&mut request).await.ok()?;
            while near.read_line(&mut line).await.ok()? > 2 {
                line.clear();
            }
            let to = request.strip_prefix("CONNECT ")?.split(' ').next()?;
            let far = TcpStream::connect(to).await.ok()?;
            near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
            near.flush().await.ok()?;
            copy(near, far, seen).await
        })
    }

    /// Passes on whatever comes to `at`, to `to`.
    pub fn passing(at: SocketAddr, to: SocketAddr) -> Self {
        Self::run_at(at, move |near, seen| async move { copy(near, TcpStream::connect(to).await.ok()?, seen).await })
    }

    fn run<F>(each: impl Fn(TcpStream, Arc<Mutex<Vec<u8>>>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Option<()>> + Send + 'static,
    {
        Self::run_at(([127, 0, 0, 1], 0).into(), each)
    }

    fn run_at<F>(at: SocketAddr, each: impl Fn(TcpStream, Arc<Mutex<Vec<u8>>>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Option<()>> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(at)).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = seen.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(each(stream, all.clone()));
            }
        });
        Self { address, seen, _runtime: runtime }
    }
}

/// Carries bytes both ways until either side ends.
async fn copy(
    near: impl AsyncRead + AsyncWrite + Unpin,
    far: impl AsyncRead + AsyncWrite + Unpin,
    seen: Arc<Mutex<Vec<u8>>>,
) -> Option<()> {
    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (tokio::io::split(near), tokio::io::split(far));
    let there = forward(&mut near_in, &mut far_out, &seen);
    let back = forward(&mut far_in, &mut near_out, &seen);
    tokio::select! {
        done = there => done,
        done = back => done,
    }
}

async fn forward(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    seen: &Mutex<Vec<u8>>,
) -> Option<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        seen.lock().unwrap().extend_from_slice(&buffer[..read]);
        to.write_all(&buffer[..read]).await.ok()?;
        to.flush().await.ok()?;
    }
}
