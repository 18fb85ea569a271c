//! `cairn operations`: look at work that goes on in the server, wait for it, stop it.

use std::io::IsTerminal;
use std::time::Duration;

use cairn_client::{Client, Operation, OperationState};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Connection, Failure, output};

const EXAMPLES: &str = "\
Examples:
  cairn operations                          what runs and what ended lately
  cairn operations --collection docs --json
  cairn operations op-5f3a91c2-3 --wait     follow one to its end
  cairn operations op-5f3a91c2-3 --cancel";

/// `cairn operations`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Operations {
    /// One of them; without it, all.
    id: Option<String>,
    /// Only those of this collection.
    #[arg(long, short, conflicts_with = "id")]
    collection: Option<String>,
    /// Wait for its end; the exit code says whether it ended well.
    #[arg(long, requires = "id", conflicts_with = "cancel")]
    wait: bool,
    /// Ask it to stop.
    #[arg(long, requires = "id")]
    cancel: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Operations {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let client = self.connection.client().await?;
        let Some(id) = self.id else {
            let all = client.operations_of(self.collection.as_deref()).await?;
            if self.json {
                return output::json(&all);
            }
            if all.is_empty() {
                output::note("no operations");
            }
            all.iter().for_each(show);
            return Ok(());
        };
        if self.wait {
            return wait(&client, &id, self.json).await;
        }
        let operation = match self.cancel {
            true => client.cancel_operation(&id).await?,
            false => client.operation(&id).await?,
        };
        if self.json {
            return output::json(&operation);
        }
        show(&operation);
        Ok(())
    }
}

/// Follows an operation to its end, with a bar on a terminal. Ending this command does not end the operation.
pub(super) async fn wait(client: &Client, id: &str, json: bool) -> Result<(), Failure> {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(100), target);
    let style = ProgressStyle::with_template("{bar:30} {pos} %  {prefix} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(format!("{id} goes on if you stop this."));
    let told = |now: &Operation| {
        bar.set_position(percent(now.progress));
        bar.set_message(now.message.clone());
    };
    let ended = client.wait(id, told).await;
    bar.finish_and_clear();
    let ended = ended?;
    match json {
        true => output::json(&ended)?,
        false => show(&ended),
    }
    match ended.state {
        OperationState::Done => Ok(()),
        _ => Err(Failure::new(format!("{id} did not finish"))),
    }
}

fn show(o: &Operation) {
    let state = match o.state {
        OperationState::Running if o.message.is_empty() => format!("{} %", percent(o.progress)),
        OperationState::Running => format!("{} %, {}", percent(o.progress), o.message),
        OperationState::Done => "done".to_owned(),
        OperationState::Failed => "failed".to_owned(),
        OperationState::Cancelled => "cancelled".to_owned(),
        _ => "?".to_owned(),
    };
    let time = o.ended_at_ms.map_or_else(String::new, |end| {
        let took = Duration::from_millis(end.saturating_sub(o.started_at_ms));
        format!(" in {:.1} s", took.as_secs_f64())
    });
    let on = o.snapshot.as_deref().unwrap_or(&o.collection);
    let said = match o.message.as_str() {
        "" => String::new(),
        message => format!(": {message}"),
    };
    let why = o
        .error
        .as_ref()
        .map_or(said, |(code, message)| format!(": {message} ({code})"));
    output::out(format!("{}  {} {on}: {state}{time}{why}", o.id, o.kind));
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
fn percent(part: f32) -> u64 {
    (part.clamp(0.0, 1.0) * 100.0) as u64
}
