"What a reader sees: JupyterLab and the report in a real browser."
