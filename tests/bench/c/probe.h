/* probe.h - what the parts of the measuring program share
 *
 * Each measurement has the shape of a command: words in, one JSON object out. Times are nanoseconds of
 * CLOCK_MONOTONIC. Any error ends the program, since a call that failed has no time. */
#ifndef PROBE_H
#define PROBE_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

#define NS_PER_S 1000000000ULL
#define WARM_UP 16 /* repetitions that do not count */

extern struct sockaddr_in server; /* what connects go to */

_Noreturn void fail(const char *what);
uint64_t now_ns(void);

/* connects.c */
int open_connection(void);
void reset_connection(int fd); /* no TIME_WAIT: no run can exhaust the ephemeral ports */
void measure_socket(size_t n);
void measure_connect(size_t n);
void measure_first_byte(size_t n);
void measure_refused(size_t n);
void measure_rate(size_t n, size_t n_threads);

/* crowd.c */
void open_many(size_t n);
void scan_fdinfo(void);
void start_many(size_t n);
void hold_sockets(size_t n);
void end_crowd(void); /* processes; the rest goes with us */

/* calls.c */
void measure_calls(const char *name, size_t n);
void measure_sendto(size_t n);
void measure_getpeername(size_t n);

/* path.c */
void measure_round_trip(size_t n);
void measure_stream(size_t mib);

/* times.c */
struct times {
    uint64_t *ns;
    size_t n;
};
struct times make_times(size_t n);
void say_times(struct times times); /* prints p50 and p99, and frees them */
void say_rate(size_t n, uint64_t ns);

#endif
