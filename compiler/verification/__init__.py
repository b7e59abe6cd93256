"""Nothing is trusted because it was made by rule: what was loaded is compared with what its source computes, and what
was built with what was loaded, before anything is written. Light to import: the process that runs ONNX files is here.
"""
