/* meshfd.h - the agent's mechanisms and what each offers the others
 *
 * One section a file. An agent is one process with one thread and one poll loop (agent.c); nothing
 * here waits, and nothing on the way of a call allocates. */
#ifndef MESHFD_H
#define MESHFD_H

#include <linux/seccomp.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "address.h"
#include "filter.h"
#include "rights.h"
#include "routes.h"
#include "util.h"
#include "wire.h"

#define MFD_LISTENERS_MAX 32 /* filters with living processes: one a start of the service */
#define MFD_LEASES_MAX 256
#define MFD_ASKS_MAX 256
#define MFD_SPAWNED_MAX 64
#define MFD_WAITS_MAX 2048
#define MFD_NAMES_MAX 8192

struct iovec;
struct mfd_agent;
struct mfd_netns;

/* --- notify.c: receive calls, answer them ------------------------------------------------------ */

struct mfd_notification {
    int listener;
    uint64_t id;
    pid_t pid; /* a thread's */
    uint64_t received_ns;
    struct mfd_call_args call;
};

struct mfd_notify {
    struct seccomp_notif_sizes sizes;
    int listeners[MFD_LISTENERS_MAX];
    unsigned n_listeners;
};

int mfd_notify_open(struct mfd_notify *notify);
int mfd_notify_add(struct mfd_notify *notify, int listener_fd);
void mfd_notify_drop(struct mfd_agent *agent, unsigned index);
int mfd_notify_receive(struct mfd_notify *notify, unsigned index, struct mfd_notification *ret);
bool mfd_notify_is_alive(const struct mfd_notification *call);
void mfd_answer(struct mfd_agent *agent, const struct mfd_notification *call, int result);
void mfd_answer_continue(struct mfd_agent *agent, const struct mfd_notification *call);
int mfd_answer_fd(const struct mfd_notification *call, int fd, bool cloexec);
int mfd_give_fd(const struct mfd_notification *call, int fd, bool cloexec);
int mfd_replace_fd(const struct mfd_notification *call, int fd, int at_fd, bool cloexec);

/* --- sources.c: what the loop waits for, beside calls --------------------------------------------- */

enum mfd_source {
    MFD_SOURCE_CONTROL,
    MFD_SOURCE_SIGNAL,
    MFD_SOURCE_WAITS,
    MFD_SOURCE_FORBIDDEN,
    MFD_SOURCE_TIMER,
    MFD_SOURCES
};

struct mfd_sources {
    int epoll_fd;
    int timer_fd;
    uint64_t timer_ns; /* when it rings; UINT64_MAX: it is not set */
    uint32_t control_events;
};

int mfd_sources_open(struct mfd_sources *sources, const int fds[MFD_SOURCE_TIMER]);
void mfd_sources_want(struct mfd_sources *sources, int control_fd, uint32_t events);
void mfd_sources_end_control(const struct mfd_sources *sources, int control_fd);
void mfd_sources_await(struct mfd_sources *sources, uint64_t deadline_ns);
void mfd_sources_take(struct mfd_sources *sources, uint32_t ret_events[MFD_SOURCES]);

/* --- release.c: give up the agent's hold on a program's socket ------------------------------------ */

void mfd_release_at(int *fd);

/* Like MFD_CLOSE, for an fd that may be a program's socket */
#define MFD_RELEASE __attribute__((cleanup(mfd_release_at)))

/* --- target.c: look into the thread whose call waits ------------------------------------------- */

enum mfd_signalled {
    MFD_NOT_SIGNALLED,
    MFD_SIGNALLED,
    MFD_SIGNALLED_PERHAPS, /* or another thread of its process */
};

int mfd_target_read(pid_t pid, uint64_t remote, void *local, size_t size);
int mfd_target_write(pid_t pid, uint64_t remote, const void *local, size_t size);
int mfd_target_write_both(pid_t pid, const struct iovec remote[2], const struct iovec local[2]);
int mfd_target_open_fd(pid_t pid, int fd, int *ret_fd);
int mfd_target_pidfd(pid_t pid, int *ret_fd);
pid_t mfd_target_process(pid_t pid);
int mfd_target_cgroup(pid_t pid, uint64_t *ret_id);
enum mfd_signalled mfd_target_signalled(pid_t pid);
bool mfd_target_is_capable(pid_t pid);
void mfd_target_forget_all(void);
uint64_t mfd_target_next_ns(void);
int mfd_target_order(pid_t pid, int fd, int own_fd);
int mfd_target_same_file(pid_t pid, int fd, int own_fd);
bool mfd_target_in_netns(pid_t pid, const struct mfd_netns *netns);
int mfd_target_fd_flags(pid_t pid, int fd, unsigned long *ret_flags);

/* --- class.c: a socket keeps its program's class of net_cls and net_prio --------------------------- */

void mfd_class_open(void);
void mfd_class_keep(pid_t pid, int fd);
void mfd_class_expire(struct mfd_agent *agent, uint64_t now_ns);
uint64_t mfd_class_next_ns(void);
void mfd_class_forget(void);

/* --- identity.c: be the program for the length of one call ---------------------------------------- */

#define MFD_GROUPS_MAX 256

struct mfd_identity {
    uid_t uid; /* effective, as the group is */
    gid_t gid;
    uid_t fs_uid;
    gid_t fs_gid;
    uint64_t capabilities; /* effective */
    unsigned n_groups;
    gid_t groups[MFD_GROUPS_MAX];
};

struct mfd_identity_change {
    struct mfd_identity own;
    struct mfd_identity other;
    bool made;
};

struct mfd_file_identity { /* whose the files are that we make */
    uid_t uid;
    gid_t gid;
    bool changed;
};

int mfd_target_identity(pid_t pid, struct mfd_identity *ret);
int mfd_identity_enter(const struct mfd_notification *call, struct mfd_identity_change *ret);
void mfd_identity_leave(const struct mfd_identity_change *change);
void mfd_identity_enter_files(pid_t pid, struct mfd_file_identity *ret_own);
void mfd_identity_leave_files(const struct mfd_file_identity *own);

/* --- waits.c: calls that wait in the agent for their socket ------------------------------------- */

enum mfd_wake {
    MFD_WAKE_READY,
    MFD_WAKE_TIMEOUT,
    MFD_WAKE_SIGNAL, /* what was done so far is the result; nothing: the call is interrupted */
};

struct mfd_trial { /* to carry a call out now */
    int fd;        /* what it waits for: the agent's duplicate of its socket, or a timer */
    enum mfd_wake wake;
    uint32_t progress;    /* the call's own, from one trial to the next */
    uint64_t progress_ns; /* when an earlier trial last changed that */
    int result;           /* out: what the call returns, or -errno */
    bool again;           /* out: it could go on at once, but others have their turn first */
};

/* Return: whether the call is over; then trial->result is set. */
typedef bool mfd_wait_try(struct mfd_agent *agent, const struct mfd_notification *call,
                          struct mfd_trial *trial);

struct mfd_wait_plan {
    mfd_wait_try *proceed;
    uint32_t events;     /* of epoll(7) */
    uint64_t timeout_ns; /* after the call was received, and after each progress; 0: none */
};

struct mfd_wait {
    struct mfd_notification call;
    mfd_wait_try *proceed; /* NULL: a free slot */
    uint32_t events;
    int next_free; /* from the slot after it on: 0, as in memory that was never touched, is that one */
    int fd;
    int pidfd;
    pid_t process;
    uint32_t progress;
    uint64_t progress_ns;
    uint64_t timeout_ns;
    uint64_t deadline_ns; /* UINT64_MAX: none */
    uint64_t look_ns;
    bool suspected; /* at the last look it was signalled, perhaps */
};

struct mfd_waits {
    struct mfd_wait slots[MFD_WAITS_MAX];
    unsigned first_free;
    unsigned n;
    unsigned room; /* at most so many; MFD_WAITS_MAX or fewer */
    int epoll_fd;
    uint64_t next_ns; /* nothing is due before */
};

int mfd_waits_open(struct mfd_waits *waits);
int mfd_wait_for(struct mfd_agent *agent, const struct mfd_notification *call, int fd,
                 const struct mfd_wait_plan *plan, uint32_t progress);
void mfd_waits_run(struct mfd_agent *agent);
void mfd_waits_expire(struct mfd_agent *agent, uint64_t now_ns);
uint64_t mfd_waits_next_ns(const struct mfd_waits *waits);
void mfd_waits_forget(struct mfd_agent *agent, int listener);

/* --- leases.c: duplicates held for a short while after socket() -------------------------------- */

struct mfd_lease {
    uint64_t expires_ns;
    uint64_t cookie; /* SO_COOKIE once somebody asked for it; 0 before */
    int own_fd;      /* -1: given up */
    int fd;          /* number in the target, a hint only */
    int domain;
};

struct mfd_leases {
    struct mfd_lease ring[MFD_LEASES_MAX];
    unsigned first; /* oldest */
    unsigned n;     /* entries in use, given up ones between them included */
    unsigned n_held;
};

void mfd_leases_put(struct mfd_leases *leases, int own_fd, int domain, int fd, uint64_t now_ns);
int mfd_leases_take(struct mfd_leases *leases, pid_t pid, int fd, int *ret_fd, int *ret_domain);
bool mfd_leases_release_same(struct mfd_leases *leases, int own_fd);
void mfd_leases_expire(struct mfd_leases *leases, uint64_t now_ns);
uint64_t mfd_leases_next_ns(const struct mfd_leases *leases);
void mfd_leases_drop_all(struct mfd_leases *leases);

/* --- cgroup.c: is a program in the agent's cgroup? ------------------------------------------------- */

struct mfd_cgroup {
    int fd;      /* of its directory; -1: not found */
    uint64_t id; /* 0: the kernel does not tell */
    char *path;  /* as /proc/PID/cgroup has it */
};

void mfd_cgroup_learn(struct mfd_cgroup *cgroup);
bool mfd_cgroup_has(const struct mfd_cgroup *cgroup, pid_t pid);
int mfd_cgroup_open_of(pid_t pid);
void mfd_cgroup_remove_own(void);

/* --- netns.c: the network namespaces that the service has sockets in -------------------------------- */

#define MFD_NETNS_NAME_ROOM 32 /* "net:[4026531840]" */

struct mfd_netns_other {
    int fd;
    uint64_t cookie; /* 0: there is none of this index */
};

struct mfd_netns {
    uint64_t cookie;                /* SO_NETNS_COOKIE of our sockets; 0: unknown */
    char name[MFD_NETNS_NAME_ROOM]; /* what /proc/self/ns/net leads to: no other has the same */
    int own_fd;                     /* of the same, while there are others */
    unsigned n_others;
    struct mfd_netns_other others[MFD_NETNS_MAX]; /* by enum mfd_netns_index */
};

uint64_t mfd_netns_cookie_of(int fd);
int mfd_netns_learn(struct mfd_netns *netns);
int mfd_netns_enter(struct mfd_netns *netns, int fd);
int mfd_netns_add(struct mfd_netns *netns, uint32_t index, int fd);
bool mfd_netns_has_ipv4(const struct mfd_netns *netns, uint32_t index);
uint32_t mfd_netns_of(const struct mfd_netns *netns, int socket_fd);
int mfd_netns_socket(const struct mfd_netns *netns, uint32_t index, int domain, int type,
                     int protocol);

/* --- birth.c: a socket where a program's own would belong ------------------------------------------ */

struct mfd_wish { /* what socket(2) is to be given, for whom, and where */
    pid_t pid;
    bool is_here; /* mfd_cgroup_has() */
    uint32_t netns;
    int domain;
    int type;
    int protocol;
};

int mfd_birth(struct mfd_agent *agent, const struct mfd_wish *wish);

/* --- sockets.c: socket(), and taking up the socket that a call names --------------------------- */

struct mfd_socket { /* the file that a call names */
    int fd;         /* the agent's own duplicate, owned */
    int protocol;   /* IPPROTO_TCP (MPTCP, too), IPPROTO_UDP; 0: nothing that we decide about */
    int domain;     /* AF_INET, AF_INET6, ...; -1: not even a socket */
    uint32_t netns; /* its network namespace's index; MFD_ANY: none that we know */
    bool leased;    /* it was: so it has settled nowhere before */
};

void mfd_socket_handle(struct mfd_agent *agent, const struct mfd_notification *call);
int mfd_socket_take_up(struct mfd_agent *agent, pid_t pid, int fd, struct mfd_socket *ret_socket);
void mfd_socket_let_go(struct mfd_agent *agent, pid_t pid, int fd);
int mfd_socket_option(int fd, int level, int name, int *ret_value);
uint64_t mfd_socket_cookie(int fd);
uint64_t mfd_socket_timeout_ns(int fd, int name);
bool mfd_socket_is_multipath(int fd);
bool mfd_socket_is_nonblocking(int fd);

/* --- inplace.c: connect a program's own open file, without waiting for it ------------------------ */

struct mfd_mode {
    int fd;
    int flags; /* of the open file, as the program has them */
};

enum mfd_look {
    MFD_LOOK_FRESH, /* nothing has happened to it */
    MFD_LOOK_USED,  /* connected, connecting, or listening */
    MFD_LOOK_OVER,  /* it was: there may be something to ask */
};

struct mfd_mode mfd_mode_enter(int fd);
struct mfd_mode mfd_mode_none(int fd);
bool mfd_mode_leave(const struct mfd_mode *mode);
int mfd_inplace_ask(int fd, int domain);
bool mfd_inplace_has_error(int fd);
bool mfd_inplace_is_closed(int fd);
enum mfd_look mfd_inplace_look(int fd);
void mfd_inplace_answer(struct mfd_agent *agent, const struct mfd_notification *call, int fd,
                        bool blocking, int error, bool first);

/* --- connect.c: connect() is decided, and carried out in place ----------------------------------- */

struct mfd_attempt { /* one connect() whose target and destination are known */
    struct mfd_notification call;
    union mfd_sockaddr sockaddr; /* as the program gave it, copied once */
    socklen_t length;
    struct mfd_address asked;
    struct mfd_address meant; /* the same, but where the wildcard leads */
    uint32_t rule;
    bool dontwait; /* MSG_DONTWAIT: the call does not block, whatever the socket is */
};

struct mfd_candidates { /* endpoints in the order in which they are tried */
    const struct mfd_endpoint *endpoints[MFD_ENDPOINTS_MAX];
    uint64_t *tallies[MFD_ENDPOINTS_MAX]; /* where a connection to it is counted, or NULL */
    unsigned n;
    uint32_t *cursor; /* moved on when one was used; NULL: there is none */
};

struct mfd_decision { /* what is to happen to an attempt */
    uint32_t verdict; /* MFD_PASS, MFD_DENY, MFD_REDIRECT */
    int error;        /* MFD_DENY: errno */
    struct mfd_candidates candidates;
};

void mfd_connect_handle(struct mfd_agent *agent, const struct mfd_notification *call);
void mfd_connect_decide(struct mfd_agent *agent, struct mfd_attempt *attempt);
void mfd_connect_resume(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                        const struct mfd_decision *decision);

/* --- candidates.c: try endpoints; balance.c: which; account.c: counts and reports ------------------ */

struct mfd_outcome {   /* of trying candidates */
    int error;         /* errno, 0: it worked */
    int used;          /* candidate that the answer is about; -1: none could be written */
    unsigned attempts; /* calls made */
    int new_fd;        /* -1, or what is connected instead and is to take the socket's place */
    int full;          /* the first candidate whose queue is full; -1: none's is */
};

bool mfd_candidates_is_refusal(int error);
struct mfd_outcome mfd_candidates_try(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                                      const struct mfd_socket *socket,
                                      const struct mfd_candidates *candidates);

void mfd_balance_choose(struct mfd_agent *agent, uint32_t upstream, struct mfd_candidates *ret);
bool mfd_balance_serves(const struct mfd_table *table, uint32_t upstream,
                        const struct mfd_address *address);
uint64_t mfd_account_time(struct mfd_agent *agent, const struct mfd_notification *call);
void mfd_account_unseen(struct mfd_agent *agent, const struct mfd_notification *call, int error,
                        const struct mfd_address *asked);
void mfd_account_rule(struct mfd_agent *agent, uint32_t rule);
void mfd_account_outcome(struct mfd_agent *agent, const struct mfd_candidates *candidates,
                         const struct mfd_outcome *outcome);
void mfd_account_denied(struct mfd_agent *agent, const struct mfd_attempt *attempt, int error,
                        uint64_t nanoseconds);
void mfd_account_redirected(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                            const struct mfd_candidates *candidates,
                            const struct mfd_outcome *outcome, uint64_t nanoseconds);

/* --- forbidden.c: ports that programs have forbidden themselves ------------------------------------ */

#define MFD_RESTRICTS_MAX 256

struct mfd_restrict { /* one landlock_restrict_self() that waits */
    bool used;
    struct mfd_notification call; /* its listener: -1 when there is nobody to answer */
    int ruleset_fd;
    int pidfd; /* of the child that tries the ports; -1: not started */
};

struct mfd_forbidden {
    struct mfd_forbidden_ports *ports;
    struct mfd_restrict calls[MFD_RESTRICTS_MAX];
    unsigned n_probing;
    int epoll_fd;
};

int mfd_forbidden_open(struct mfd_forbidden *forbidden);
bool mfd_forbidden_connects(const struct mfd_agent *agent, uint16_t port);
bool mfd_forbidden_binds(const struct mfd_agent *agent, uint16_t port);
void mfd_restrict_handle(struct mfd_agent *agent, const struct mfd_notification *call);
void mfd_forbidden_run(struct mfd_agent *agent);
void mfd_forbidden_forget(struct mfd_agent *agent, int listener);

/* --- names.c: what programs asked for, and what they were given ----------------------------------- */

struct mfd_name {
    uint64_t cookie; /* of the socket; 0: a free place */
    struct mfd_address asked;
    struct mfd_address given;
    uint64_t used; /* the clock then */
    pid_t process; /* that connected it, under the number fd */
    int fd;
    bool pinned; /* a connected UDP socket, which follows its upstream */
};

#define MFD_GIVEN_BITS 65536

struct mfd_names {
    struct mfd_name names[MFD_NAMES_MAX];
    uint64_t given[MFD_GIVEN_BITS / 64]; /* a bit of a hash for each address that was ever given */
    uint64_t clock;
    uint32_t n_unchecked; /* of them, since the route table was replaced */
};

struct mfd_name *mfd_names_by_asked(struct mfd_names *names, uint64_t cookie,
                                    const struct mfd_address *asked);
struct mfd_name *mfd_names_by_given(struct mfd_names *names, uint64_t cookie,
                                    const struct mfd_address *given);
struct mfd_name *mfd_names_put(struct mfd_names *names, uint64_t cookie,
                               const struct mfd_address *asked, const struct mfd_address *given);
bool mfd_names_was_given(const struct mfd_names *names, const struct mfd_address *address);
void mfd_names_end(struct mfd_names *names, uint64_t cookie, const struct mfd_address *given);
void mfd_names_pin(struct mfd_name *name, pid_t pid, int fd);
void mfd_names_repin(struct mfd_agent *agent);
void mfd_names_step(struct mfd_agent *agent);

/* --- message.c: a message in the target's memory; send.c, receive.c: datagrams; told.c: addresses --- */

#define MFD_DATAGRAM_MAX 65535 /* of UDP: an IP packet's length */
#define MFD_CONTROL_MAX 4096   /* bytes of control messages */
#define MFD_MESSAGES_TURN 32   /* of one call, before others have their turn */

struct mfd_message {    /* struct msghdr, as the target has it */
    uint64_t name;      /* 0: none */
    uint32_t name_size; /* at most MFD_SOCKADDR_MAX; 0 without a name */
    uint64_t iov;
    uint64_t n_iov;
    uint64_t control;
    uint64_t control_size;
};

int mfd_message_read(const struct mfd_notification *call, uint64_t at, struct mfd_message *ret);
int mfd_message_gather(const struct mfd_notification *call, const struct mfd_message *message,
                       struct msghdr *ret);
int mfd_message_room(const struct mfd_notification *call, const struct mfd_message *message,
                     struct msghdr *ret);
int mfd_message_scatter(const struct mfd_notification *call, const struct mfd_message *message,
                        uint64_t at, struct msghdr *filled, size_t size);
int mfd_message_name(const struct mfd_notification *call, const struct mfd_message *message,
                     union mfd_sockaddr *ret);
uint64_t mfd_message_at(const struct mfd_notification *call, uint64_t messages, uint32_t index);
int mfd_message_set_length(const struct mfd_notification *call, uint64_t at, uint32_t length);
void mfd_send_handle(struct mfd_agent *agent, const struct mfd_notification *call);
void mfd_receive_handle(struct mfd_agent *agent, const struct mfd_notification *call);
void mfd_getpeername_handle(struct mfd_agent *agent, const struct mfd_notification *call);
bool mfd_told_translate(struct mfd_agent *agent, int fd, union mfd_sockaddr *sockaddr,
                        socklen_t *length);
int mfd_told_write(pid_t pid, uint64_t address, uint64_t length_at,
                   const union mfd_sockaddr *sockaddr, socklen_t length);

/* --- asks.c: calls that wait for the supervisor's verdict --------------------------------------- */

struct mfd_ask {
    uint64_t call; /* 0: free */
    uint64_t deadline_ns;
    struct mfd_attempt attempt;
};

struct mfd_asks {
    struct mfd_ask slots[MFD_ASKS_MAX];
    uint64_t last_call;
    unsigned n;
};

int mfd_asks_put(struct mfd_agent *agent, const struct mfd_attempt *attempt, uint64_t cookie);
void mfd_asks_default(const struct mfd_agent *agent, struct mfd_decision *ret_decision);
void mfd_asks_forget_rules(struct mfd_asks *asks);
void mfd_asks_answer(struct mfd_agent *agent, const struct mfd_verdict_msg *verdict);
void mfd_asks_expire(struct mfd_agent *agent, uint64_t now_ns);
void mfd_asks_default_all(struct mfd_agent *agent);
void mfd_asks_forget(struct mfd_agent *agent, int listener);
uint64_t mfd_asks_next_ns(const struct mfd_asks *asks);

/* --- listening.c: the sockets opened before the daemon; activation.c: bind() and listen() ------- */

struct mfd_listening {
    int fd; /* -1: no such index */
    uint64_t cookie;
    struct mfd_address address;
    int domain;
    bool v6only;
    uint32_t backlog;
};

#define MFD_BOUND_KINDS 3 /* LISTENING, HANDED, MISMATCH */

/* The last report of each kind about one socket that found the channel full; header.type 0: none. */
struct mfd_bound_reports {
    struct mfd_bound unsent[MFD_BOUND_KINDS];
};

struct mfd_listening_sockets {
    struct mfd_listening sockets[MFD_LISTEN_MAX];
    unsigned n; /* indices given out so far that are in use, or were below one in use */
};

int mfd_listening_open(struct mfd_listening_sockets *all, const struct mfd_netns *netns,
                       const struct mfd_listen *request, uint32_t *ret_index);
int mfd_listening_close(struct mfd_listening_sockets *all, uint32_t index);
int mfd_listening_find(const struct mfd_listening_sockets *all, int fd);
void mfd_listening_rearm_all(struct mfd_agent *agent);
void mfd_bind_handle(struct mfd_agent *agent, const struct mfd_notification *call);
void mfd_listen_handle(struct mfd_agent *agent, const struct mfd_notification *call);
void mfd_options_carry(int from_fd, int to_fd);
void mfd_options_carry_standin(int from_fd, int to_fd);
void mfd_options_carry_all(int from_fd, int to_fd);
typedef void mfd_option_take(void *context, int level, int name, const void *value, socklen_t size);
void mfd_options_differing(int fd, int fresh_fd, mfd_option_take *take, void *context);

/* --- epoll.c: registrations of a socket in the program's epoll instances -------------------------- */

#define MFD_REGISTRATIONS_MAX 1024 /* of one socket */

struct mfd_registration {
    int epoll_fd; /* the agent's own duplicate */
    int at_fd;    /* the socket's number in the program */
    struct epoll_event event;
};

struct mfd_registrations {
    struct mfd_registration found[MFD_REGISTRATIONS_MAX];
    unsigned n;
    int file_fd; /* while registering */
    int moved[MFD_REGISTRATIONS_MAX];
    int error;
};

int mfd_epoll_has(pid_t pid, int epoll_fd, int fd);
int mfd_epoll_collect(pid_t pid, const int *numbers, unsigned n_numbers,
                      struct mfd_registrations **ret_found);
int mfd_epoll_register(struct mfd_registrations *registrations, int file_fd);
int mfd_epoll_restore(struct mfd_registrations *found, int file_fd);

/* --- watch.c: has anybody an open file still? ------------------------------------------------------ */

struct mfd_watch {
    int epoll_fd;
    int number; /* the file's, in there */
};

int mfd_watch_open(int fd, struct mfd_watch *ret_watch);
bool mfd_watch_is_open(const struct mfd_watch *watch);
bool mfd_watch_is_at(const struct mfd_watch *watch, pid_t pid, int fd);
void mfd_watch_close(struct mfd_watch *watch);

/* --- known.c: which sockets something is known of ------------------------------------------------- */

#define MFD_KNOWN_BITS 65536

struct mfd_known { /* a bit of a hash each */
    uint64_t bits[2][MFD_KNOWN_BITS / 64];
    unsigned half; /* the one that is filled */
    unsigned n;    /* in it */
};

void mfd_known_add(struct mfd_known *known, uint64_t cookie);
bool mfd_known_has(struct mfd_known *known, int socket_fd);

/* --- parked.c, parked_table.c: epoll registrations that wait for their socket's connect() --------- */

#define MFD_PARKED_MAX 1024
#define MFD_PARKED_INSTANCES_MAX 768

struct mfd_parked_socket {
    uint64_t cookie; /* 0: a free slot */
    pid_t pid;       /* who registered it first, for a notice */
    struct mfd_watch watch;
    unsigned n_users;
};

struct mfd_parked_instance {
    int fd; /* own duplicate */
    unsigned n_users;
};

struct mfd_parked_one {
    bool used;
    uint16_t socket;
    uint16_t instance;
    int fd; /* the socket's number in the program */
    struct epoll_event event;
};

struct mfd_parked {
    struct mfd_parked_one ones[MFD_PARKED_MAX];
    unsigned n;
    struct mfd_parked_socket sockets[MFD_PARKED_MAX];
    struct mfd_parked_instance
        instances[MFD_PARKED_INSTANCES_MAX]; /* in the kernel's order of files */
    unsigned n_instances;
    unsigned n_fds; /* that all this holds */
    unsigned fds_max;
    uint64_t sweep_ns;           /* the next one is due */
    uint64_t swept_ns;           /* when the last one was */
    struct mfd_known registered; /* sockets that are in an instance for good */
};

struct mfd_parked_request {
    pid_t pid;
    int epoll_fd; /* numbers in the program */
    int fd;
    int own_fd; /* our duplicate of the socket */
    uint64_t cookie;
    uint64_t now_ns;
    struct epoll_event event;
};

int mfd_parked_open(struct mfd_parked *parked);
int mfd_parked_put(struct mfd_parked *parked, const struct mfd_parked_request *request);
struct mfd_parked_one *mfd_parked_find(struct mfd_parked *parked, pid_t pid, int epoll_fd, int fd,
                                       uint64_t cookie);
bool mfd_parked_has_fd(const struct mfd_parked *parked, int fd);
pid_t mfd_parked_due(const struct mfd_parked *parked, uint64_t cookie,
                     struct mfd_registrations *ret_due);
void mfd_parked_done(struct mfd_parked *parked, uint64_t cookie);
void mfd_parked_give_up(struct mfd_parked *parked, struct mfd_parked_one *one);
void mfd_parked_expire(struct mfd_parked *parked, uint64_t now_ns);
uint64_t mfd_parked_next_ns(const struct mfd_parked *parked);
void mfd_epoll_ctl_handle(struct mfd_agent *agent, const struct mfd_notification *call);
void mfd_parked_keep(struct mfd_agent *agent, int socket_fd);
void mfd_parked_replace(struct mfd_agent *agent, uint64_t cookie, int file_fd);
void mfd_parked_settle(struct mfd_agent *agent, pid_t pid, int fd);

/* --- replace.c: another file in the place of a program's socket ------------------------------------ */

struct mfd_watched { /* a socket that was replaced, and is perhaps somebody else's, too */
    uint64_t due_ns; /* 0: none */
    struct mfd_watch watch;
    pid_t pid;
    struct mfd_address asked;
};

struct mfd_standin;

struct mfd_replacement {
    int fd; /* the new file */
    /* Make a socket like the old one, for a thread that waits. Return: 0 or -errno. */
    int (*revive)(struct mfd_agent *agent, const struct mfd_replacement *replacement, int *ret_fd);
    const struct mfd_standin *record;    /* of a unix socket */
    const struct mfd_notification *call; /* of another of the internet: whose it is, */
    uint32_t old_netns;                  /* and the namespace of the old one; its index */
    uint64_t old_cookie;                 /* set by mfd_replace() */
};

int mfd_replace(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                struct mfd_replacement *replacement, int *old_fd);
void mfd_replaced_expire(struct mfd_agent *agent, uint64_t now_ns);
uint64_t mfd_replaced_next_ns(const struct mfd_watched *watched);

/* --- elsewhere.c: sockets of other network namespaces ---------------------------------------------- */

int mfd_elsewhere_open(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                       const struct mfd_socket *socket, uint32_t netns, int *ret_fd);
int mfd_elsewhere_replace(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                          struct mfd_socket *socket, int new_fd);
void mfd_elsewhere_note_bind(struct mfd_agent *agent, const struct mfd_notification *call);
bool mfd_elsewhere_bind(struct mfd_agent *agent, const struct mfd_attempt *attempt);
bool mfd_elsewhere_may_be(const struct mfd_agent *agent);
uint32_t mfd_elsewhere_of_address(const struct mfd_agent *agent, const struct mfd_address *address);

/* --- standin.c: unix sockets in place of TCP sockets; standin_calls.c: what they answer ----------- */

#define MFD_STANDINS_WAYS 8 /* records that share a place; the oldest gives way */
#define MFD_STANDINS_SETS 512
#define MFD_STANDIN_OPTIONS_ROOM 400 /* bytes; an int takes 10 */

struct mfd_standin {
    uint64_t cookie;      /* of the unix socket; 0: a free record */
    uint64_t told_cookie; /* of the TCP socket */
    uint64_t used;        /* when last; greater is later */
    struct mfd_address local;
    struct mfd_address peer;
    uint16_t domain; /* AF_INET, AF_INET6 */
    uint16_t protocol;
    bool untold;           /* the program knows of an attempt, and not yet that it has succeeded */
    uint16_t options_size; /* bytes in use */
    uint8_t options[MFD_STANDIN_OPTIONS_ROOM]; /* see standin_calls.c */
};

struct mfd_standins {
    struct mfd_standin records[MFD_STANDINS_SETS][MFD_STANDINS_WAYS];
    uint64_t n_made;
    uint64_t clock;
};

int mfd_standin_open(const struct mfd_notification *call, const struct mfd_endpoint *endpoint,
                     int *ret_fd);
int mfd_standin_replace(struct mfd_agent *agent, const struct mfd_attempt *attempt, int tcp_fd,
                        int standin_fd, bool blocking);
struct mfd_standin *mfd_standin_find(struct mfd_agent *agent, const struct mfd_notification *call,
                                     int fd);
bool mfd_standin_connect(struct mfd_agent *agent, const struct mfd_notification *call);
bool mfd_standin_name(struct mfd_agent *agent, const struct mfd_notification *call, bool peer);
void mfd_standin_option_handle(struct mfd_agent *agent, const struct mfd_notification *call,
                               bool set);
int mfd_standin_open_like(const struct mfd_standin *standin, int *ret_fd);
void mfd_standin_options_read(struct mfd_standin *standin, int tcp_fd);

/* --- queue.c: connect() waits for room in the queue of a unix socket ------------------------------- */

#define MFD_QUEUED_MAX 256

struct mfd_queued {
    bool used;
    struct mfd_attempt attempt;
    struct mfd_endpoint endpoint;
    uint64_t *tally; /* or NULL */
    uint64_t cookie; /* of the program's socket */
};

struct mfd_queue {
    struct mfd_queued calls[MFD_QUEUED_MAX];
};

bool mfd_queue_wait(struct mfd_agent *agent, const struct mfd_attempt *attempt, int socket_fd,
                    const struct mfd_candidates *candidates, int index);
void mfd_queue_forget_rules(struct mfd_queue *queue);

/* --- waiters.c: threads that wait for a socket in the kernel --------------------------------------- */

bool mfd_waiters_exist(const struct mfd_notification *call, const int *fds, unsigned n_fds);

/* --- spawn.c: start a program under its filter -------------------------------------------------- */

struct mfd_program_view { /* a program block, mapped and checked */
    const struct mfd_program *program;
    size_t size;
    const uint32_t *groups;
    const char *working_dir;
    const char *file;
    char **argv;
    char **envp;
    char **vectors; /* what argv and envp point into; owned */
};

struct mfd_spawn_request {
    const struct mfd_program_view *view;
    const struct mfd_filter_features *features;
    uint32_t flags;   /* MFD_SPAWN_* */
    const int *stdio; /* three fds, or NULL */
    struct rlimit nofile;
    bool sigchld_ignored; /* it starts with SIGCHLD ignored */
};

struct mfd_spawn_result {
    pid_t pid;
    int listener_fd;
    int error; /* errno at the stage */
    enum mfd_stage stage;
};

int mfd_program_open(int block_fd, struct mfd_program_view *ret_view);
void mfd_program_close(struct mfd_program_view *view);
int mfd_spawn(const struct mfd_spawn_request *request, struct mfd_spawn_result *ret_result);

/* --- children.c: reap, signal, end ---------------------------------------------------------------- */

struct mfd_children {
    pid_t spawned[MFD_SPAWNED_MAX]; /* whose end is reported; 0: free */
    pid_t main;                     /* spawned last, 0 when it has ended */
    bool ending;                    /* SIGKILL everything, and what is re-parented to us */
    bool none;                      /* nothing left to wait for */
    uint64_t stop_deadline_ns;      /* SIGKILL then; 0: not stopping */
};

int mfd_children_add(struct mfd_children *children, pid_t pid);
bool mfd_children_have_room(const struct mfd_children *children);
void mfd_children_reap(struct mfd_agent *agent);
int mfd_children_signal(struct mfd_agent *agent, int signo, uint32_t scope);
void mfd_children_stop(const struct mfd_children *children, int signo);
void mfd_children_end(struct mfd_children *children);

/* --- control.c: the supervisor's requests, the agent's reports ---------------------------------- */

struct mfd_control {
    int fd;
    bool full;                 /* a report that must not be lost waits for room */
    struct mfd_done done;      /* an answer that found the channel full; header.type 0: none */
    struct mfd_exited stopped; /* the last stop that found it full, likewise */
    struct mfd_bound_reports bound[MFD_LISTEN_MAX + 1]; /* the last: sockets of no index */
};

void mfd_control_receive(struct mfd_agent *agent);
int mfd_control_report(struct mfd_agent *agent, void *message, uint16_t type, size_t size);
void mfd_control_bound(struct mfd_agent *agent, uint16_t type, pid_t pid, uint32_t index,
                       const struct mfd_address *address);
void mfd_control_stopped(struct mfd_agent *agent, pid_t pid, uint32_t status);
void mfd_control_notice(struct mfd_agent *agent, enum mfd_notice notice, pid_t pid, int error,
                        const struct mfd_address *address, uint32_t index);
void mfd_control_flush(struct mfd_agent *agent);

/* --- trim.c: give memory back ---------------------------------------------------------------------- */

void mfd_trim(void);

/* --- stats.c ---------------------------------------------------------------------------------------- */

int mfd_stats_open(struct mfd_stats **ret_stats, int *ret_fd);
void mfd_stats_time(uint64_t *histogram, uint64_t nanoseconds);

/* --- agent.c ---------------------------------------------------------------------------------------- */

enum mfd_leave {
    MFD_STAY,     /* the supervisor is there */
    MFD_DETACHED, /* it left on purpose: serve what runs, then exit */
    MFD_LOST,     /* it vanished: stop what runs, then exit */
};

struct mfd_agent {
    int signal_fd;
    struct rlimit nofile; /* as inherited; programs get it back */
    bool sigchld_ignored; /* likewise */
    struct mfd_netns netns;
    enum mfd_leave leave;
    bool occupied;  /* something was spawned, and its end is not yet reported */
    uint32_t flags; /* MFD_SETUP_* */
    bool ready_any; /* MFD_SPAWN_READY_ANY of the last spawn */
    uint32_t ask_timeout_ms;
    uint32_t stop_signal;
    uint32_t stop_timeout_ms;
    struct mfd_cgroup cgroup;
    const struct mfd_table *table;
    uint64_t *tally; /* n_rules + n_endpoints counters beside the table, or NULL */
    size_t tally_size;
    uint32_t *cursors; /* one an upstream of the table */
    uint32_t random;   /* xorshift state */
    struct mfd_stats *stats;
    int stats_fd;
    struct mfd_control control;
    struct mfd_notify notify;
    struct mfd_sources sources;
    struct mfd_waits waits;
    struct mfd_forbidden forbidden;
    struct mfd_leases leases;
    struct mfd_names names;
    struct mfd_asks asks;
    struct mfd_listening_sockets listening;
    struct mfd_parked parked;
    struct mfd_standins standins;
    struct mfd_watched watched;
    struct mfd_known bound; /* sockets that programs have bound */
    struct mfd_queue queue;
    struct mfd_children children;
    int foreground_fd;       /* pidfd of the process that stands for our program; -1: none does */
    bool foreground_stopped; /* by us, because the program was */
    uint64_t noticed;        /* bit per notice: once a spawn is enough */
};

#endif
