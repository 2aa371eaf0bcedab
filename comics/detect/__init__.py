"""From a trained run to verdicts: of a whole split as COCO results, of one's own pictures and videos.

``images`` (comics.images) in, ``backends`` (PyTorch or onnxruntime) find, ``model`` groups what they found to faces with one
verdict each (``outcome``), ``files`` writes JSON, CSV, COCO results and overlays, ``video`` follows faces over frames, ``app``
shows it all in a browser, ``predictor`` is the pipeline's step. Only ``backends``' PyTorch half and ``predictor`` need torch.
"""
