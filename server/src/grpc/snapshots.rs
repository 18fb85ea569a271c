//! `cairn.v1.Snapshots`: decode, call, encode, as in the module above.

use cairn_proto::v1 as pb;
use cairn_proto::v1::snapshots_server::Snapshots;
use tonic::Request;

use super::{Answer, Grpc, answer, convert};

#[tonic::async_trait]
impl Snapshots for Grpc {
    async fn create(&self, request: Request<pb::CreateSnapshotRequest>) -> Answer<pb::Operation> {
        answer(async {
            let (call, m) = self.open(request)?;
            let operation = self.service.create_snapshot(call, convert::text_in(m.snapshot)).await;
            operation.map(convert::operation_out)
        })
        .await
    }

    async fn list(&self, request: Request<pb::ListSnapshotsRequest>) -> Answer<pb::ListSnapshotsResponse> {
        answer(async {
            let (call, _) = self.open(request)?;
            let all = self.service.snapshots(call).await?;
            Ok(pb::ListSnapshotsResponse {
                snapshots: all.into_iter().map(convert::snapshot_out).collect(),
            })
        })
        .await
    }

    async fn get(&self, request: Request<pb::GetSnapshotRequest>) -> Answer<pb::Snapshot> {
        answer(async {
            let (call, m) = self.open(request)?;
            self.service.snapshot(call, m.snapshot).await.map(convert::snapshot_out)
        })
        .await
    }

    async fn verify(&self, request: Request<pb::VerifySnapshotRequest>) -> Answer<pb::Operation> {
        answer(async {
            let (call, m) = self.open(request)?;
            let operation = self.service.verify_snapshot(call, m.snapshot).await;
            operation.map(convert::operation_out)
        })
        .await
    }

    async fn restore(&self, request: Request<pb::RestoreSnapshotRequest>) -> Answer<pb::Operation> {
        answer(async {
            let (call, m) = self.open(request)?;
            let (snapshot, what) = convert::restore_in(m)?;
            let operation = self.service.restore_snapshot(call, snapshot, what).await;
            operation.map(convert::operation_out)
        })
        .await
    }

    async fn delete(&self, request: Request<pb::DeleteSnapshotRequest>) -> Answer<pb::Operation> {
        answer(async {
            let (call, m) = self.open(request)?;
            let operation = self.service.delete_snapshot(call, m.snapshot).await;
            operation.map(convert::operation_out)
        })
        .await
    }
}
