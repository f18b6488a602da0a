"""From a source's samples to batches: reading and digest (dataset), the decoded cache (cache), train, validation and
test (split), batches whose order follows from (seed, epoch) (batches), random changes on whole batches (augment)."""
