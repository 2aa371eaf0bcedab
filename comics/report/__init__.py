"""Reports: tables and figures beside the paper's, the page and the compiled paper. Rendering never imports torch."""
