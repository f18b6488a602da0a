"""Pictures by the million: listed in a file, worked through shard by shard, answered in Parquet."""
