"""What `torch.onnx.export` makes of a plain network, on a runtime with its own settings but for the number of threads.

Nothing here loads PyTorch, so that a new process can be measured without it.
"""

from benchmarks.forms import Call, Form, Workload
from salience.runtime.backends.ov import openvino_core


class ExportedForms:
    """Opens forms of kind "export".

    Attributes:
        notes: what a form does of its own accord, found when it was opened.
    """

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.notes: dict[Form, str] = {}

    def open(self, form: Form) -> Call:
        """The form as a call on the workload's inputs; what cannot be opened raises the error of its library."""
        return self._onnxruntime_call(form) if form.backend == "onnxruntime" else self._openvino_call(form)

    def _onnxruntime_call(self, form: Form) -> Call:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads, settings.log_severity_level = form.threads, 3
        session = onnxruntime.InferenceSession(
            str(self.workload.exported(form.batch)), settings, providers=["CPUExecutionProvider"]
        )
        names = [value.name for value in session.get_inputs()]
        feeds = dict(zip(names, self.workload.inputs(form.batch), strict=True))
        return lambda: session.run(None, feeds)

    def _openvino_call(self, form: Form) -> Call:
        config: dict[str, object] = {"INFERENCE_NUM_THREADS": form.threads}
        if form.precision == "fp32":
            config["INFERENCE_PRECISION_HINT"] = "f32"
        compiled = openvino_core().compile_model(str(self.workload.exported(form.batch)), "CPU", config)
        if form.precision == "default":
            kind = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
            self.notes[form] = f"computes in {kind}"
        request, inputs = compiled.create_infer_request(), list(self.workload.inputs(form.batch))
        return lambda: request.infer(inputs)
