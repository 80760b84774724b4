/* wire.h - what the supervisor and an agent say to each other, and what they share in memory
 *
 * One header for both sides: the agent compiles it, the Python extension reads the part between the
 * two "cdef" marks (cffi; so that part holds only fixed-width structs, enums and plain #defines).
 *
 * Control channel: AF_UNIX SOCK_SEQPACKET, one message a packet, file descriptors by SCM_RIGHTS.
 * Every message opens with struct mfd_header; `version` is checked first, and a stranger's is
 * refused with both numbers named. The supervisor numbers its requests (`seq`); the agent answers
 * each with one MFD_MSG_DONE of the same seq. Events carry seq 0.
 *
 * Byte order is the host's: both ends are on one machine. Ports are in host order.
 * Source: unix(7), seccomp_unotify(2). */
#ifndef MESHFD_WIRE_H
#define MESHFD_WIRE_H

#include <stdint.h>

/* cdef begin */
#define MFD_WIRE_VERSION 4

#define MFD_UNIX_PATH_MAX 108 /* of sockaddr_un, a path's NUL included */
#define MFD_NAME_MAX 64       /* bytes of a listening socket's name, its NUL included */
#define MFD_ENDPOINTS_MAX 8   /* endpoints that one verdict, and one connect, may try */
#define MFD_LISTEN_MAX 64     /* listening sockets of one service */
#define MFD_NETNS_MAX 16  /* network namespaces that one service has sockets in, its own included */
#define MFD_CHANNEL_FDS 4 /* files that one packet may carry */
#define MFD_ANY 0xffffffffu /* "none" where an index is expected, "keep" where an id is */

/* An address as people write it. v4-mapped IPv6 is always held as IPv4, except where a listening
 * socket is opened with it on purpose. */
struct mfd_address {
    uint16_t family; /* AF_INET, AF_INET6; 0: none; in an endpoint also AF_UNIX, and no more */
    uint16_t port;
    uint32_t scope_id; /* IPv6 interface index, or 0 */
    uint8_t bytes[16]; /* network order; the first 4 for AF_INET */
};

/* Network namespaces as one agent knows them. */
enum mfd_netns_index {
    MFD_NETNS_OWN,  /* where the service lives */
    MFD_NETNS_IPV4, /* where its IPv4 is, if that is another */
    MFD_NETNS_OTHER /* this one and the following: as MFD_MSG_NETNS says */
};

/* Where a connection may go: an internet address, or a stream unix socket. */
struct mfd_endpoint {
    struct mfd_address address;
    uint32_t weight;    /* in a route table; 0 gets no new connections */
    uint16_t netns;     /* that an internet address is reached from; enum mfd_netns_index */
    uint16_t path_size; /* AF_UNIX: bytes of path, without a NUL at the end; else 0 */
    char path[MFD_UNIX_PATH_MAX]; /* a NUL first: abstract */
};

enum mfd_msg_type {
    /* supervisor to agent */
    MFD_MSG_SETUP = 1, /* first; answered with the statistics memfd attached */
    MFD_MSG_ROUTES,    /* one fd: a sealed route table; replaces the one in force */
    MFD_MSG_LISTEN,    /* open a listening socket; DONE.value is its index */
    MFD_MSG_UNLISTEN,  /* close it */
    MFD_MSG_SPAWN,     /* fds: program block, then stdin, stdout, stderr unless INHERIT */
    MFD_MSG_SIGNAL,
    MFD_MSG_VERDICT, /* the answer to an MFD_MSG_CALL; not answered itself */
    MFD_MSG_DETACH,  /* the supervisor leaves on purpose: serve what runs, then exit */
    MFD_MSG_NETNS,   /* one fd: sockets may be made in this network namespace, too */
    /* agent to supervisor */
    MFD_MSG_DONE = 64,
    MFD_MSG_EXITED,    /* a process that was spawned has ended */
    MFD_MSG_STOPPED,   /* ... was stopped by a signal (job control) */
    MFD_MSG_LISTENING, /* listen() was called */
    MFD_MSG_HANDED,    /* bind() received a listening socket */
    MFD_MSG_MISMATCH,  /* bind() to a port that is configured, but not to its address */
    MFD_MSG_DECIDED,   /* a connect() was redirected or denied */
    MFD_MSG_CALL,      /* an `ask` connect() waits for a verdict */
    MFD_MSG_NOTICE,    /* something worth a line in the log */
    MFD_MSG_EMPTY,     /* the last process of the service is gone */
};

enum mfd_verdict {
    MFD_PASS = 1,
    MFD_DENY,
    MFD_REDIRECT,
    MFD_ASK,
};

/* mfd_setup.flags */
#define MFD_SETUP_STRICT 1       /* no CONTINUE after a decision */
#define MFD_SETUP_CREATE 2       /* track = "create": sockets are made by the agent */
#define MFD_SETUP_EVENTS 4       /* send MFD_MSG_DECIDED */
#define MFD_SETUP_ASK_OPEN 8     /* an `ask` without an answer in time passes; else ECONNREFUSED */
#define MFD_SETUP_UDP 16         /* some route is for UDP */
#define MFD_SETUP_STANDINS 32    /* some endpoint is a unix socket */
#define MFD_SETUP_TRANSPARENT 64 /* programs are told the addresses that they asked for */
#define MFD_SETUP_IO_URING 128   /* io_uring is allowed, and unseen */
#define MFD_SETUP_NETNS 256      /* live in the network namespace whose fd comes along */
#define MFD_SETUP_NEW_NETNS 512  /* live in a new one */
#define MFD_SETUP_ELSEWHERE 1024 /* some endpoint is reached from another network namespace */
#define MFD_SETUP_IPV4 2048      /* IPv4 is in MFD_NETNS_IPV4, and nowhere else */

/* mfd_spawn.flags */
#define MFD_SPAWN_INHERIT 1 /* the child keeps the agent's own open fds; the agent then lets go */
#define MFD_SPAWN_SETSID 2
#define MFD_SPAWN_READY_ANY 4 /* report listen() on sockets that were not handed over, too */

/* mfd_signal.scope */
enum mfd_scope {
    MFD_SCOPE_MAIN = 1, /* the process that was spawned last */
    MFD_SCOPE_ALL,      /* every process of the service; with SIGKILL until none is left */
};

/* Where a spawn failed (mfd_done.stage); 0: it did not. */
enum mfd_stage {
    MFD_STAGE_BLOCK = 1, /* the program block is malformed */
    MFD_STAGE_CLONE,
    MFD_STAGE_NO_NEW_PRIVS,
    MFD_STAGE_FILTER, /* EBUSY: another seccomp supervisor has this process tree */
    MFD_STAGE_FILES,
    MFD_STAGE_LIMITS,
    MFD_STAGE_CREDENTIALS,
    MFD_STAGE_CHDIR,
    MFD_STAGE_EXEC,
};

enum mfd_notice {
    MFD_NOTICE_UNREADABLE = 1, /* a program made itself unreadable (non-dumpable) */
    MFD_NOTICE_NO_ENDPOINT,    /* no endpoint of the route can be written in the socket's family */
    MFD_NOTICE_ASK_FULL,       /* too many calls wait for verdicts */
    MFD_NOTICE_ASK_TIMEOUT,
    MFD_NOTICE_REARMED,     /* a program shut its listening socket down; it was opened again */
    MFD_NOTICE_FOREIGN_PID, /* a call from a pid namespace that the agent cannot see into */
    MFD_NOTICE_HANDOVER,    /* a listening socket could not be put at the fd */
    MFD_NOTICE_PARKED, /* an epoll registration could not be made when its socket was connected */
    MFD_NOTICE_WAITED_FOR, /* a thread waits for a socket that was to be replaced: not connected */
    MFD_NOTICE_STANDIN,    /* a socket could not be replaced */
    MFD_NOTICE_SHARED,     /* somebody else has the socket that was replaced, and keeps it */
    MFD_NOTICE_FORBIDDEN,  /* a port that a program has forbidden itself: left to the kernel */
    MFD_NOTICE_EXHAUSTED,  /* no fd or memory is left to look into a call with */
    MFD_NOTICE_CLASS,      /* sockets have lost their program's class of net_cls or net_prio */
    MFD_NOTICE_COUNT_,
};

struct mfd_header {
    uint16_t version;
    uint16_t type;
    uint32_t size; /* of the whole message */
    uint64_t seq;
};

struct mfd_setup {
    struct mfd_header header;
    uint32_t flags;
    uint32_t ask_timeout_ms;
    uint32_t stop_signal; /* when the supervisor is gone without a word */
    uint32_t stop_timeout_ms;
    uint32_t uid; /* whose the listening sockets are before the first SPAWN; MFD_ANY: ours */
    uint32_t gid;
};

struct mfd_plain { /* ROUTES, DETACH, EMPTY */
    struct mfd_header header;
};

struct mfd_netns_msg {
    struct mfd_header header;
    uint32_t index; /* not MFD_NETNS_OWN; one that is known is replaced */
    uint32_t pad_;
};

struct mfd_listen {
    struct mfd_header header;
    struct mfd_address address;
    uint32_t backlog;
    uint16_t flags; /* MFD_LISTEN_* */
    uint16_t netns; /* that it listens in; its index */
    char name[MFD_NAME_MAX];
};
#define MFD_LISTEN_V6ONLY 2 /* IPV6_V6ONLY; without it [::] listens for both families */
#define MFD_LISTEN_MAPPED 1 /* AF_INET address on an AF_INET6 socket (v4-mapped) */

struct mfd_unlisten {
    struct mfd_header header;
    uint32_t index;
    uint32_t pad_;
};

struct mfd_spawn {
    struct mfd_header header;
    uint32_t flags;
    uint32_t pad_;
};

struct mfd_signal {
    struct mfd_header header;
    uint32_t signo;
    uint32_t scope;
};

struct mfd_verdict_msg {
    struct mfd_header header;
    uint64_t call; /* of MFD_MSG_CALL */
    uint32_t verdict;
    uint32_t error; /* errno for MFD_DENY */
    uint32_t n_endpoints;
    uint32_t pad_;
    struct mfd_endpoint endpoints[MFD_ENDPOINTS_MAX];
};

struct mfd_done {
    struct mfd_header header;
    uint32_t error; /* errno, 0: done */
    uint32_t stage; /* enum mfd_stage */
    uint32_t value; /* SPAWN: pid; LISTEN: index */
    uint32_t pad_;
};

struct mfd_exited { /* EXITED, STOPPED */
    struct mfd_header header;
    uint32_t pid;
    uint32_t status; /* as waitpid(2) gives it */
};

struct mfd_bound { /* LISTENING, HANDED, MISMATCH */
    struct mfd_header header;
    uint32_t pid;
    uint32_t index; /* listening socket, or MFD_ANY */
    struct mfd_address address;
};

struct mfd_decided {
    struct mfd_header header;
    uint32_t pid;
    uint32_t verdict; /* REDIRECT or DENY */
    uint32_t rule;    /* index in the route table; MFD_ANY: decided by the supervisor */
    uint32_t error;   /* errno the program was given; EINPROGRESS: the attempt goes on */
    uint32_t attempts;
    uint32_t nanoseconds; /* from receiving the call to just before its answer */
    struct mfd_address asked;
    struct mfd_endpoint given; /* family 0 when denied */
    uint32_t pad_;
};

struct mfd_call {
    struct mfd_header header;
    uint64_t call;
    uint64_t cookie; /* SO_COOKIE of the socket */
    uint32_t pid;
    uint32_t rule;
    struct mfd_address asked;
};

struct mfd_notice_msg {
    struct mfd_header header;
    uint32_t notice;
    uint32_t pid;
    uint32_t error;
    uint32_t index;
    struct mfd_address address;
};

/* The program block (a memfd): this record, then n_groups gids (u32), then NUL-terminated strings:
 * working directory ("" keeps), file to execute, n_argv arguments, n_env NAME=VALUE. */
#define MFD_PROGRAM_MAGIC 0x6d666470u
#define MFD_RLIMITS 16 /* RLIM_NLIMITS, on every architecture */
struct mfd_rlimit {
    uint64_t soft; /* UINT64_MAX: unlimited */
    uint64_t hard;
};
struct mfd_program {
    uint32_t magic;
    uint32_t n_argv;
    uint32_t n_env;
    uint32_t n_groups;
    uint32_t uid; /* MFD_ANY keeps */
    uint32_t gid;
    uint32_t umask; /* MFD_ANY keeps */
    uint32_t strings_size;
    uint64_t blocked_signals; /* bit n-1: signal n */
    uint64_t limited;         /* bit n: the limit of number n is set */
    struct mfd_rlimit rlimits[MFD_RLIMITS];
};

/* Counters of one agent, written by it alone, readable at any time. All only grow, but the
 * gauges, which say so. Histogram: handling time of calls, bucket b counts 2^b to 2^(b+1)-1 ns. */
#define MFD_STATS_BUCKETS 32
struct mfd_stats {
    uint64_t version;
    uint64_t calls;    /* notifications received */
    uint64_t sockets;  /* created for targets */
    uint64_t connects; /* connect() to internet addresses, looked up */
    uint64_t passed;
    uint64_t redirected;
    uint64_t denied;
    uint64_t asked;
    uint64_t refused;  /* redirects for which every endpoint failed at once */
    uint64_t retried;  /* endpoints passed over because they refused at once */
    uint64_t repinned; /* connected UDP sockets moved to another endpoint */
    uint64_t binds;
    uint64_t handed; /* listening sockets handed over */
    uint64_t mismatched;
    uint64_t listens;
    uint64_t adopted;      /* sockets taken up that were not created by the agent */
    uint64_t vanished;     /* targets gone in the middle of a call */
    uint64_t out_of_reach; /* calls that could not be looked into */
    uint64_t events_lost;  /* MFD_MSG_DECIDED and _NOTICE dropped because nobody read */
    uint64_t leases;       /* gauge */
    uint64_t asks;         /* gauge: calls that wait for a verdict */
    uint64_t waits;        /* gauge: calls that wait for their socket */
    uint64_t listeners;    /* gauge: filters with living processes */
    uint64_t standins;     /* TCP sockets replaced by unix sockets */
    uint64_t parked;       /* gauge: epoll registrations that wait for a connect() */
    uint64_t connect_ns[MFD_STATS_BUCKETS];
    uint64_t socket_ns[MFD_STATS_BUCKETS];
};

/* A rule before compilation: first/last are ports, inclusive. */
struct mfd_rule {
    struct mfd_address network; /* family 0: any address of both families; port unused */
    uint16_t prefix;            /* bits */
    uint16_t first_port;
    uint16_t last_port;
    uint16_t verdict;
    uint32_t upstream; /* REDIRECT: index */
    uint32_t error;    /* DENY: errno */
    uint32_t protocol; /* IPPROTO_TCP, IPPROTO_UDP */
};

enum mfd_balance {
    MFD_ROUND_ROBIN = 1,
    MFD_RANDOM,
};

struct mfd_upstream {
    uint32_t balance;
    uint32_t first_endpoint;
    uint32_t n_endpoints;
    uint32_t pad_;
};
/* cdef end */

#endif
