"""From a source's samples to arrays: reading and digest (dataset), preparation (pixels), the decoded cache (cache),
train, validation and test (split), and public data sets (fetch, download)."""
