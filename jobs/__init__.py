"""Programs that run on a cluster, one file a job. All Ray calls live here and in `cluster`."""
