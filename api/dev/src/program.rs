//! Running a program as one step of ours: its output feeds the progress line, and its end an error.

use std::{collections::VecDeque, process::Stdio};

use anyhow::Context;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
    sync::mpsc,
};

use crate::progress::Step;

const KEPT_LINES: usize = 40;

/// Runs `command` to its end; each line of its output becomes the step's message.
///
/// # Errors
/// When it cannot be started, or ends otherwise than with 0: then with its last lines. It is killed when
/// this future is dropped.
pub async fn run(step: &Step, mut command: Command) -> anyhow::Result<()> {
    let name = name(&command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("start {name}"))?;
    let (sender, mut lines) = mpsc::channel(256);
    let readers = [
        tokio::spawn(read(child.stdout.take(), sender.clone())),
        tokio::spawn(read(child.stderr.take(), sender)),
    ];
    let mut kept = VecDeque::new();
    while let Some(line) = lines.recv().await {
        step.message(&line);
        if kept.len() == KEPT_LINES {
            kept.pop_front();
        }
        kept.push_back(line);
    }
    for reader in readers {
        reader.await?;
    }
    let status = child.wait().await?;
    anyhow::ensure!(
        status.success(),
        "{name} ended with {status}:\n{}",
        Vec::from(kept).join("\n")
    );
    Ok(())
}

/// Runs `command` and returns what it prints on stdout.
///
/// # Errors
/// When it cannot be started, or ends otherwise than with 0: then with its stderr.
pub async fn output(mut command: Command) -> anyhow::Result<String> {
    let name = name(&command);
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("start {name}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.success(),
        "{name} ended with {}: {}",
        output.status,
        error.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn name(command: &Command) -> String {
    let command = command.as_std();
    let args = command.get_args().take(3).map(|arg| arg.to_string_lossy().into_owned());
    let program = command.get_program().to_string_lossy().into_owned();
    let words: Vec<String> = std::iter::once(program).chain(args).collect();
    format!("`{}`", words.join(" "))
}

async fn read(stream: Option<impl AsyncRead + Unpin>, lines: mpsc::Sender<String>) {
    let Some(stream) = stream else { return };
    // apt and others redraw a line with carriage returns: each drawing is a line here.
    let mut parts = BufReader::new(stream).split(b'\n');
    while let Ok(Some(part)) = parts.next_segment().await {
        for line in String::from_utf8_lossy(&part).split('\r').map(str::trim_end) {
            if !line.is_empty() && lines.send(line.to_owned()).await.is_err() {
                return;
            }
        }
    }
}
