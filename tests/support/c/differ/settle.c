/* settle.c - wait until nothing about our TCP sockets is under way
 *
 * What passes between two loopback sockets is delivered within the call that sends it, unless the
 * receiving socket is locked, or an acknowledgement is delayed (at most 200 ms). So a socket that is on
 * its way to another state gets there soon, and its state tells (TCP_INFO, tcp(7)). Two kinds stay on
 * their way: one whose attempt nobody answers (a note says so, or it is noted after UNANSWERED), and one
 * that Fast Open has put off. What is behind a socket of MPTCP is told by TCP_INFO, and it follows.
 * Source: include/net/tcp_states.h; net/ipv4/tcp.c, tcp_get_info. */
#include "differ.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif

#define PAUSE_US 200
#define PAUSES_MAX 25000 /* 5 s */
#define UNANSWERED                                                                                 \
    1500 /* pauses: 300 ms; an answer comes at once, and SYNs are repeated after 1 s */

enum { /* include/net/tcp_states.h */
    ESTABLISHED = 1,
    SYN_SENT,
    SYN_RECV,
    FIN_WAIT1,
    FIN_WAIT2,
    TIME_WAIT,
    CLOSE,
    CLOSE_WAIT,
    LAST_ACK,
    LISTEN,
    CLOSING,
};

struct note *notes;

/* notes_reset - forget; before the first sequence also: make room, shared with all children */
void notes_reset(void)
{
    if (notes == NULL) {
        notes = mmap(NULL, N_NOTES * sizeof(*notes), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        must("mmap", notes == MAP_FAILED ? -1 : 0);
    }
    memset(notes, 0, N_NOTES * sizeof(*notes));
}

/* cookie_of - 0: no socket */
uint64_t cookie_of(int fd)
{
    uint64_t cookie;
    socklen_t size = sizeof(cookie);

    return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) < 0 ? 0 : cookie;
}

/* note_of - what is noted of the file at fd; NULL: no socket */
struct note *note_of(int fd)
{
    uint64_t cookie = cookie_of(fd);

    for (int i = 0; i < N_NOTES && cookie != 0; i++) {
        struct note *note = &notes[i];

        if (note->cookie == 0)
            note->cookie = cookie;
        if (note->cookie == cookie)
            return note;
    }
    return NULL;
}

struct tcp_view tcp_view_of(int fd)
{
    struct tcp_view view = {.state = -1};
    struct tcp_info info = {0};
    socklen_t size = sizeof(info);

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0)
        return view;
    view.state = info.tcpi_state;
    view.sent_syn = info.tcpi_segs_out > 0;
    view.unsent = info.tcpi_notsent_bytes > 0;
    return view;
}

/* tcp_state_name - states that differ only in what the peer has acknowledged have one name */
const char *tcp_state_name(int state)
{
    switch (state) {
    case -1:
        return "not tcp";
    case ESTABLISHED:
        return "established";
    case SYN_SENT:
        return "connecting";
    case CLOSE:
        return "closed";
    case LISTEN:
        return "listening";
    case CLOSE_WAIT:
        return "half closed by peer";
    case FIN_WAIT1:
    case FIN_WAIT2:
        return "half closed";
    default:
        return "closing";
    }
}

/* What MPTCP's first connection has come to, the socket comes to a moment later, by a worker. */
static bool is_behind(int fd, const struct tcp_view *view)
{
    struct sockaddr_storage peer;
    socklen_t length = sizeof(peer);
    struct pollfd polled = {.fd = fd, .events = POLLRDHUP};
    int protocol = 0;
    socklen_t size = sizeof(protocol);

    if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) < 0 || protocol != IPPROTO_MPTCP)
        return false;
    if (view->state == CLOSE_WAIT)
        return poll(&polled, 1, 0) == 0;
    return view->state == CLOSE && getpeername(fd, (struct sockaddr *)&peer, &length) == 0;
}

static bool is_on_its_way(int fd, int pauses)
{
    struct tcp_view view = tcp_view_of(fd);
    struct note *note;

    if (pauses < UNANSWERED && is_behind(fd, &view))
        return true;
    switch (view.state) {
    case SYN_SENT:
        note = note_of(fd);
        if (note != NULL && pauses >= UNANSWERED)
            note->hole = true;
        return view.sent_syn && (note == NULL || !note->hole);
    case SYN_RECV:
    case FIN_WAIT1:
    case LAST_ACK:
    case CLOSING:
        return true;
    case ESTABLISHED:
    case CLOSE_WAIT:
        return view.unsent;
    default:
        return false;
    }
}

/* settle - let the servers act, and wait until every slot's socket has come to rest */
void settle(void)
{
    for (int pauses = 0; pauses < PAUSES_MAX; pauses++) {
        bool waiting = false;

        if (!is_child)
            serve();
        for (int i = 0; i < N_SLOTS; i++)
            waiting = waiting || (slots[i] >= 0 && is_on_its_way(slots[i], pauses));
        if (!waiting)
            return;
        usleep(PAUSE_US);
    }
    tell(" UNSETTLED");
}
