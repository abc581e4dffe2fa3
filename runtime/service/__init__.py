"""Serve bundles over HTTP and gRPC: KServe's Open Inference Protocol v2, a plain picture API, and a web page."""
