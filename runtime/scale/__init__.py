"""Many pictures on many workers, by Ray: `salience batch` over stored inputs, and a service that grows with its load.

`plan` makes `units` of what is to do, each done by a `worker` in one piece; `shards` and `columns` are the tar and
Parquet files, `state` and `attempts` what outlives a run or a worker. `cluster` and `run` spread the units over Ray;
`deployment` is the service. Importing any of them loads neither Ray nor pyarrow.
"""
