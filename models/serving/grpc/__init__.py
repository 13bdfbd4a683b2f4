"""The gRPC face: driftlog.v1.Driftlog and the Open Inference Protocol, over the same Service as REST."""
