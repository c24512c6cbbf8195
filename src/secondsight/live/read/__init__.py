"""What a running Linux shows of a process: procfs, tracefs, sysfs, cgroups, kernel memory; and a snapshot made of it."""
