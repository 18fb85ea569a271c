//! `cairn serve`: flags over environment over file over defaults, then the server until a signal ends it.

use std::path::PathBuf;
use std::time::Duration;

use cairn_server::config::Config;
use cairn_server::serve::{self, ServeError};
use cairn_server::telemetry;
use clap::Args;

use super::{Failure, output, read_pdf};

/// What is ended at once needs no tokenizer.
const WARM_UP_AFTER: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  cairn serve                                              127.0.0.1:7700, data in ./data
  cairn serve --data-dir /var/lib/cairn --listen 127.0.0.1:8000
  cairn serve --config cairn.toml --set limits.writes_max=8
  CAIRN_LIMITS__TIMEOUT_MS=5000 cairn serve                any key as an environment variable

Sources, later ones win: defaults, --config, CAIRN_... variables, flags. A key
that nothing reads is refused. SIGTERM and Ctrl-C drain: no new connections,
requests in flight end, everything is flushed. One line on standard output says
the addresses once requests are answered; logs go to standard error.";

/// `cairn serve`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Serve {
    /// A TOML file.
    #[arg(long, env = "CAIRN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of REST and gRPC [default: 127.0.0.1:7700]; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Address of /metrics, /livez and /readyz [default: 127.0.0.1:7701].
    #[arg(long, value_name = "ADDR:PORT")]
    metrics_listen: Option<String>,
    /// Directory of the database [default: ./data]; made if missing.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Listen beyond loopback although this version asks nobody who they are.
    #[arg(long)]
    insecure_no_auth: bool,
    /// Any configuration key, e.g. limits.reads_max=16. Repeatable.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
}

pub(super) fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("write it as key=value, e.g. limits.reads_max=16")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// A TOML string: a directory may be called `7`, or hold a comma.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

impl Serve {
    fn flags(&self) -> Vec<(String, String)> {
        let mut flags = self.set.clone();
        let named = [
            ("listen", &self.listen),
            ("metrics_listen", &self.metrics_listen),
            ("data_dir", &self.data_dir),
        ];
        for (key, value) in named {
            flags.extend(value.as_deref().map(|v| (key.to_owned(), quoted(v))));
        }
        if self.insecure_no_auth {
            flags.push(("insecure_no_auth".to_owned(), "true".to_owned()));
        }
        flags
    }

    pub(super) async fn run(self) -> Result<(), Failure> {
        let config = Config::load(self.config.as_deref(), &self.flags()).map_err(|e| Failure::usage(e.to_string()))?;
        let pdfs = read_pdf::apart()?;
        serve::warm_up(WARM_UP_AFTER);
        telemetry::init_logs(&config.log).map_err(|e| Failure::usage(format!("log.filter: {e}")))?;
        // The handlers before the work: a signal during a long replay must end it, not kill it.
        let signals = serve::signals();
        tokio::pin!(signals);
        let running = tokio::select! {
            biased;
            signal = &mut signals => return signal.map_err(|e| Failure::new(format!("no signal handlers: {e}"))),
            started = serve::start_with(config, pdfs) => started?,
        };
        output::out(format!(
            "cairn {} listening on http://{} metrics http://{}",
            env!("CARGO_PKG_VERSION"),
            running.addr(),
            running.metrics_addr()
        ));
        Ok(running.until(signals).await?)
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Config(e) => Self::usage(e.to_string()),
            other => Self::new(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_arrive_as_they_were_written() {
        for dir in ["data", "7", "a, b", "with \"quotes\" and \\", "[x]", "größe"] {
            let serve = Serve {
                config: None,
                listen: Some("[::1]:0".into()),
                metrics_listen: None,
                data_dir: Some(dir.into()),
                insecure_no_auth: true,
                set: vec![("limits.writes_max".into(), "8".into())],
            };
            let config = Config::load(None, &serve.flags()).unwrap();
            assert_eq!(config.data_dir, PathBuf::from(dir));
            assert_eq!(
                (config.listen.to_string().as_str(), config.limits.writes_max),
                ("[::1]:0", 8)
            );
            assert!(config.insecure_no_auth);
        }
    }
}
