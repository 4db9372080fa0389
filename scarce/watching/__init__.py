"""What one watches while trials run: TensorBoard, Prometheus, MLflow, Weights & Biases."""
