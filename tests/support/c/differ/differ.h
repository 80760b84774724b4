/* differ.h - differ FILE [told-back] [handed] [direct] PLACE...: perform written sequences of socket operations, and say all that shows
 *
 * Theory of operation: FILE holds sequences, each "seed N", then one operation a line, then "end"
 * (tests/differential/sequences.py writes them). main.c performs each in a process of its own, so that
 * every one starts with the same fds. An operation prints one line: its number, its own words, and what
 * a program can see of it: result, errno, addresses, events, fd numbers. The transcript of a bare run
 * and of one under meshfd can then be compared line by line.
 *
 * What makes a transcript repeat itself:
 *   - the servers live in the same process and act only between operations (server.c), in whose kernel
 *     calls the loopback device delivers everything; then settle.c waits until no TCP socket is on its
 *     way to another state;
 *   - a call that could wait for ever is interrupted by a signal, sent when it is known to wait
 *     (interrupt.c); all others are known to return;
 *   - ports that the kernel chose are printed as whose they are, or as "*" (address.c).
 *
 * A PLACE is where connections go: NAME=HOST,PORT,REAL_HOST,FD. HOST is what operations name and
 * REAL_HOST where a route leads from there (the same one in a bare run); FD is the listening socket,
 * inherited, or ("handed") received at standard input; -1 when nobody accepts there. "told-back": a program
 * is told HOST where it has asked for HOST. "direct": an i386 program without socketcall(2).
 *
 * Limits: N_SLOTS fds and N_EPOLLS instances a sequence; a sequence that takes longer than
 * SEQUENCE_PATIENCE_S is killed, and the transcript says so. */
#ifndef DIFFER_H
#define DIFFER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/types.h>

#define N_SLOTS 8
#define N_EPOLLS 2
#define N_PLACES 24
#define N_WORDS 10
#define N_LINES 512
#define LINE_MAX_ 256
#define NO_FD 900 /* what an empty slot is taken for: no open file has it */
#define SEQUENCE_PATIENCE_S 20

/* --- address.c ----------------------------------------------------------------------------------------- */

struct place {
    char name[32];
    int type; /* SOCK_STREAM; SOCK_DGRAM: its name begins with "udp-" */
    char host[64];
    char real_host[64];
    int port;
    int fd;
};

struct target { /* what a connect() or bind() is given */
    struct sockaddr_storage storage;
    socklen_t length;
    bool hole; /* nobody answers there */
};

extern struct place places[N_PLACES];
extern int n_places;
extern int places_socket; /* -1: the places' fds are inherited */
extern bool told_back;    /* addresses are told as they were asked for */

void place_add(const char *text);
bool target_parse(const char *word, int fd, struct target *ret);
int socket_type(int fd);
bool bind_address_parse(const char *word, struct target *ret);
void say_address(const struct sockaddr_storage *storage, socklen_t length, int fd);

/* --- main.c: the line that is being written, and what an operation works on ------------------------------ */

extern int slots[N_SLOTS]; /* -1: empty */
extern int epolls[N_EPOLLS];
extern bool is_child;   /* a forked one: the servers are its parent's */
extern bool is_vforked; /* it uses its parent's memory */
extern bool directly;   /* i386: without socketcall(2) */

struct sequence {
    char *lines[N_LINES];
    int n;
};

__attribute__((format(printf, 1, 2))) void tell(const char *format, ...);
void tell_result(int result);
const char *error_name(int error);
int must(const char *what, int value);
int slot_index(const char *word);
int slot_fd(const char *word);
void slot_put(const char *word, int fd);
void perform(const struct sequence *sequence, int from, int to);

/* --- others.c ------------------------------------------------------------------------------------------ */

#define RESUME "resume" /* the first argument of the program that is executed anew */

int perform_by_another(const struct sequence *sequence, int at, int to);
_Noreturn void resume(const char *number);

/* --- settle.c ------------------------------------------------------------------------------------------- */

struct tcp_view {
    int state;     /* TCP_*; -1: no TCP socket */
    bool sent_syn; /* in TCP_SYN_SENT: false when Fast Open has put it off */
    bool unsent;   /* data that waits for an acknowledgement of earlier data */
};

struct note { /* what is known of an open file, by its cookie; shared with forked children */
    uint64_t cookie;
    bool hole;    /* its attempt to connect has no answer */
    bool buffers; /* sizes were set, so the kernel does not choose them */
};

#define N_NOTES 256
extern struct note *notes;

void notes_reset(void);
struct note *note_of(int fd);
uint64_t cookie_of(int fd);
struct tcp_view tcp_view_of(int fd);
const char *tcp_state_name(int state);
void settle(void);

/* --- server.c ------------------------------------------------------------------------------------------- */

void serve(void);
void servers_drain(void);

/* --- interrupt.c ---------------------------------------------------------------------------------------- */

extern bool restarting;             /* the handler has SA_RESTART, the first time it runs */
extern volatile int n_broken_pipes; /* SIGPIPEs since it was last printed */

void signals_begin(void);
void interrupt_begin(int connecting_fd, bool patient);
void interrupt_end(void);

/* --- operations -------------------------------------------------------------------------------------------- */

struct operation {
    const char *name;
    void (*run)(char **words, int n_words); /* words[0] is the name */
};

extern const struct operation socket_operations[];  /* sockets.c */
extern const struct operation connect_operations[]; /* connects.c */
extern const struct operation option_operations[];  /* options.c */
extern const struct operation stream_operations[];  /* streams.c */
extern const struct operation message_operations[]; /* messages.c */
extern const struct operation event_operations[];   /* events.c */
void say_events(int fd);
void say_name(int fd, bool peer);
bool is_foreign(int fd);
void note_attempt(int fd, bool hole);
const struct sockaddr_storage *mistake(struct target *target, const char *how);
bool is_listening(int fd);

#define DATA_MAX 64
size_t count_of(const char *word);
void fill(char *data, size_t n);
void tell_data(ssize_t n, const char *data);

/* --- i386: the kernel's own calls, where the C library makes socketcall(2) do ----------------------------- */

#ifdef __i386__
#include <sys/syscall.h>
#include <unistd.h>

#define CALL(name, ...) (directly ? syscall(SYS_##name, __VA_ARGS__) : (name)(__VA_ARGS__))

#define socket(...) ((int)CALL(socket, __VA_ARGS__))
#define bind(...) ((int)CALL(bind, __VA_ARGS__))
#define connect(...) ((int)CALL(connect, __VA_ARGS__))
#define listen(...) ((int)CALL(listen, __VA_ARGS__))
#define accept4(...) ((int)CALL(accept4, __VA_ARGS__))
#define getsockname(...) ((int)CALL(getsockname, __VA_ARGS__))
#define getpeername(...) ((int)CALL(getpeername, __VA_ARGS__))
#define sendto(...) ((ssize_t)CALL(sendto, __VA_ARGS__))
#define sendmsg(...) ((ssize_t)CALL(sendmsg, __VA_ARGS__))
#define sendmmsg(...) ((int)CALL(sendmmsg, __VA_ARGS__))
#define recvfrom(...) ((ssize_t)CALL(recvfrom, __VA_ARGS__))
#define recvmsg(...) ((ssize_t)CALL(recvmsg, __VA_ARGS__))
#define recvmmsg(...) ((int)CALL(recvmmsg, __VA_ARGS__))
#define shutdown(...) ((int)CALL(shutdown, __VA_ARGS__))
#define getsockopt(...) ((int)CALL(getsockopt, __VA_ARGS__))
#define setsockopt(...) ((int)CALL(setsockopt, __VA_ARGS__))
#endif

#endif
