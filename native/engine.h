/* engine.h - the C functions that Python calls (engine.c, channel.c, routes_compile.c) */
#ifndef MESHFD_ENGINE_H
#define MESHFD_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#include "wire.h"

/* cdef begin */
/* Rules to a sealed route table: a memfd, or -errno. See routes_compile.c. */
int mfd_routes_compile(const struct mfd_rule *rules, uint32_t n_rules,
                       const struct mfd_upstream *upstreams, uint32_t n_upstreams,
                       const struct mfd_endpoint *endpoints, uint32_t n_endpoints);

/* What a table says of an address, as an agent would see it; 0 or -errno. */
int mfd_engine_lookup(int table_fd, uint32_t protocol, const struct mfd_address *address,
                      uint32_t *ret_verdict, uint32_t *ret_rule, uint32_t *ret_argument);

/* The filter that SETUP flags ask for, as struct sock_filter words of 8 bytes; returns how many. */
#define MFD_ENGINE_FILTER_MAX 512
unsigned mfd_engine_filter(uint32_t setup_flags, uint64_t *ret_words);

/* A signalfd(2) for these signals (bit n-1: signal n), which are blocked; or -errno. */
int mfd_engine_signals_open(uint64_t signals);

/* The next one: its number, siginfo's si_code and the sender's pid. Returns 1, 0 when none waits, or
 * -errno. */
int mfd_engine_signals_next(int signal_fd, int *ret_signo, int *ret_code, int *ret_pid);

/* A new control channel, both ends blocking and close-on-exec; 0 or -errno. */
int mfd_engine_channel_open(int *ret_ours, int *ret_theirs);

/* Send a packet and at most MFD_CHANNEL_FDS files, which stay the caller's; 0 or -errno. */
int mfd_engine_channel_send(int channel, const uint8_t *packet, size_t size, const int *fds,
                            size_t n_fds);

/* Wait for a packet. Its bytes, 0 at the end of the channel, or -errno; -EMSGSIZE or -EMFILE: it is
 * lost, because it or its files could not be had in full. `ret_fds` has room for MFD_CHANNEL_FDS; they
 * are close-on-exec and the caller's. */
int mfd_engine_channel_receive(int channel, uint8_t *packet, size_t size, int *ret_fds,
                               size_t *ret_n_fds);

/* Address families and protocols: the kernel's numbers (static_assert in engine.c). */
#define MFD_UNIX 1
#define MFD_INET 2
#define MFD_INET6 10
#define MFD_TCP 6
#define MFD_UDP 17

/* Move this thread to a network namespace, or, with -1, to a new one; 0 or -errno. */
int mfd_engine_netns_enter(int netns_fd);
/* cdef end */

#endif
