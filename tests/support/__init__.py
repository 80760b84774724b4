"""What the tests stand on: programs, servers, processes, terminals."""
