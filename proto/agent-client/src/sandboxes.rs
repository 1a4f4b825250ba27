//! What only sandboxes of users need: pause, resume, a command that ends with its call, ping and metrics.

use std::time::Duration;

use ovenbird_hostagent::v1;
use tonic::Request;

use crate::{
    agent::{Agent, Client},
    error::Error,
    exec::CallEvents,
    types::{Command, MetricPoint, MetricRange, Sandbox, signed},
};

impl Agent {
    /// Puts a sandbox's memory on the disk; one that is paused stays so. Not repeated.
    ///
    /// # Errors
    /// [`Error::FailedPrecondition`] in a state that cannot be paused. After any other error it may be paused or not.
    pub async fn pause_sandbox(&self, sandbox_id: &str) -> Result<(), Error> {
        let message = v1::PauseSandboxRequest { sandbox_id: sandbox_id.to_owned() };
        let deadline = self.config.deadlines.pause;
        self.once(deadline, message, |mut client, request| async move {
            client.pause_sandbox(request).await
        })
        .await
        .map(drop)
    }

    /// Lets a paused sandbox go on, and sets its idle limit; one that runs gets the limit only. Not repeated.
    ///
    /// # Errors
    /// [`Error::NoRoom`]: it stays paused. After any other error it may be paused or not.
    pub async fn resume_sandbox(
        &self,
        sandbox_id: &str,
        idle_timeout_sec: u32,
    ) -> Result<Sandbox, Error> {
        let message = v1::ResumeSandboxRequest {
            sandbox_id: sandbox_id.to_owned(),
            timeout_sec: signed(idle_timeout_sec),
        };
        let deadline = self.config.deadlines.pause;
        let resumed = self
            .once(deadline, message, |mut client, request| async move {
                client.resume_sandbox(request).await
            })
            .await?;
        let v1::ResumeSandboxResponse { sandbox_id, status, host_ip } = resumed;
        Ok(Sandbox { sandbox_id, status, host_ip })
    }

    /// Runs a command that is killed after `timeout` (rounded up to seconds), or when the events are dropped. Not
    /// repeated.
    ///
    /// # Errors
    /// As every call; later ones come with the events.
    pub async fn exec_stream(
        &self,
        sandbox_id: &str,
        command: &Command,
        timeout: Duration,
    ) -> Result<CallEvents, Error> {
        let seconds = timeout.as_millis().div_ceil(1000).max(1);
        let message = v1::ExecStreamRequest {
            sandbox_id: sandbox_id.to_owned(),
            cmd: command.cmd.clone(),
            args: command.args.clone(),
            timeout_sec: i32::try_from(seconds).unwrap_or(i32::MAX),
            fence: self.fence.clone(),
            context: Some(command.context()),
        };
        // The agent asks the guest twice before it answers.
        let deadline = self.config.deadlines.short.saturating_mul(2);
        let open = |mut client: Client, mut request: Request<v1::ExecStreamRequest>| {
            // The deadline is for the first answer only.
            request.metadata_mut().remove("grpc-timeout");
            async move { client.exec_stream(request).await }
        };
        Ok(CallEvents::new(self.once(deadline, message, open).await?))
    }

    /// Counts as use of a running sandbox. Repeated when the host cannot be reached.
    ///
    /// # Errors
    /// [`Error::FailedPrecondition`] when it does not run.
    pub async fn ping_sandbox(&self, sandbox_id: &str) -> Result<(), Error> {
        let message = v1::PingSandboxRequest { sandbox_id: sandbox_id.to_owned() };
        let deadline = self.config.deadlines.short;
        self.repeated(deadline, message, |mut client, request| async move {
            client.ping_sandbox(request).await
        })
        .await
        .map(drop)
    }

    /// What a sandbox used, oldest first. Repeated when the host cannot be reached.
    ///
    /// # Errors
    /// As every call.
    pub async fn sandbox_metrics(
        &self,
        sandbox_id: &str,
        range: MetricRange,
    ) -> Result<Vec<MetricPoint>, Error> {
        let message = v1::GetSandboxMetricsRequest {
            sandbox_id: sandbox_id.to_owned(),
            range: range.as_str().to_owned(),
        };
        let deadline = self.config.deadlines.short;
        let metrics = self
            .repeated(deadline, message, |mut client, request| async move {
                client.get_sandbox_metrics(request).await
            })
            .await?;
        Ok(metrics.points.into_iter().map(Into::into).collect())
    }

    /// Takes every point that there is; the host forgets them. Not repeated: what a lost answer held is gone.
    ///
    /// # Errors
    /// As every call.
    pub async fn flush_sandbox_metrics(
        &self,
        sandbox_id: &str,
    ) -> Result<Vec<(MetricRange, MetricPoint)>, Error> {
        let message = v1::FlushSandboxMetricsRequest { sandbox_id: sandbox_id.to_owned() };
        let deadline = self.config.deadlines.short;
        let flushed = self
            .once(deadline, message, |mut client, request| async move {
                client.flush_sandbox_metrics(request).await
            })
            .await?;
        let v1::FlushSandboxMetricsResponse { points_10m, points_2h, points_24h } = flushed;
        let ranges = MetricRange::ALL.into_iter().zip([points_10m, points_2h, points_24h]);
        let points = ranges.flat_map(|(range, points)| {
            points.into_iter().map(move |point| (range, MetricPoint::from(point)))
        });
        Ok(points.collect())
    }
}
