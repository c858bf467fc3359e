"""An exported model as one ONNX graph for onnxruntime, compared with the model it was made from."""
