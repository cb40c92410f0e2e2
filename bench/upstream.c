/* upstream.c - a fake OpenAI-compatible backend, much faster than any gateway.
 *
 * One epoll thread, HTTP/1.1 keep-alive, 127.0.0.1 only.  No dependencies (Linux).
 *   cc -O2 -o upstream upstream.c && ./upstream -p 9100 -n 20 -d 50
 *     -p port   -n chunks per stream (a request's "max_tokens" overrides it)
 *     -d ms between chunks (0: all chunks in one write)   -t ms before the first byte
 *   POST /v1/chat/completions   canned JSON, or SSE when the body says "stream": true
 *                               (usage chunk when it says "include_usage": true)
 *   POST /v1/embeddings, GET /v1/models
 *   GET  /_stats                counters: requests, streams done, aborted, open connections
 * Every SSE content delta is "t<CLOCK_MONOTONIC ns> " so that a client on the same machine
 * reads the exact one-way time of each chunk, whatever the gateway does to the envelope. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct conn {
    int fd, closing, left, sent, usage, busy, stream;  /* left, sent: chunks of this stream */
    long long due;                               /* when the next write is due, ns */
    char *in;  size_t in_len, in_cap;
    char *out; size_t out_len, out_cap, out_off;
    struct conn *qn, *qp; int queued;            /* timer queue */
} conn;

static int ep, n_chunks = 20;
static long long delay_ns = 50000000, first_ns = 0;
static long requests, streams, aborted, open_conns;
static conn q[2];   /* two timer queues (first byte; between chunks): each has one constant
                       delay, so arrival order is due order */

static long long now(void) {
    struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}
static void q_del(conn *c) {
    if (!c->queued) return;
    c->qp->qn = c->qn; c->qn->qp = c->qp; c->queued = 0;
}
static void q_add(conn *h, conn *c, long long due) {
    c->due = due; c->qp = h->qp; c->qn = h; h->qp->qn = c; h->qp = c; c->queued = 1;
}
static void put(conn *c, const char *s, size_t n) {
    if (c->out_len + n > c->out_cap) {
        c->out_cap = (c->out_len + n) * 2;
        c->out = realloc(c->out, c->out_cap);
    }
    memcpy(c->out + c->out_len, s, n); c->out_len += n;
}
static void drop(conn *c) {
    if (c->busy) aborted++;
    q_del(c); close(c->fd); free(c->in); free(c->out); free(c); open_conns--;
}
/* 0: fine; -1: the connection is gone (and freed) */
static int flush(conn *c) {
    while (c->out_off < c->out_len) {
        ssize_t n = send(c->fd, c->out + c->out_off, c->out_len - c->out_off, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) return 0;       /* EPOLLOUT (edge) resumes */
            drop(c); return -1;
        }
        c->out_off += n;
    }
    c->out_len = c->out_off = 0;
    if (c->closing && !c->busy) { drop(c); return -1; }
    return 0;
}
static void reply(conn *c, const char *body, size_t n) {
    char h[256];
    int k = snprintf(h, sizeof h, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                     "x-request-id: req_fake\r\nContent-Length: %zu\r\n\r\n", n);
    put(c, h, k); put(c, body, n);
}
static const char CHAT[] =
    "{\"id\":\"chatcmpl-fake0123456789abcdef\",\"object\":\"chat.completion\",\"created\":1700000000,"
    "\"model\":\"fake\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"The quick "
    "brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog.\",\"refusal\":null},"
    "\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":21,\"completion_tokens\":20,"
    "\"total_tokens\":41,\"prompt_tokens_details\":{\"cached_tokens\":0}},\"system_fingerprint\":\"fp_fake\"}";
static const char MODELS[] =
    "{\"object\":\"list\",\"data\":[{\"id\":\"fake\",\"object\":\"model\",\"created\":1700000000,\"owned_by\":\"fake\"}]}";
static char EMB[4096]; static size_t emb_len;
#define SSE_HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n" \
                 "Transfer-Encoding: chunked\r\n\r\n"
#define CHUNK "data: {\"id\":\"chatcmpl-fake\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"fake\","

static void event(conn *c, const char *s, int n) {
    char h[16]; int k = snprintf(h, sizeof h, "%x\r\n", n);
    put(c, h, k); put(c, s, n); put(c, "\r\n", 2);
}
static void chunk(conn *c) {                     /* one content delta; after the last, the tail */
    char b[512]; int k;
    k = snprintf(b, sizeof b, CHUNK "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":"
                 "\"t%lld \"},\"finish_reason\":null}]}\n\n", now());
    event(c, b, k); c->sent++;
    if (--c->left > 0) return;
    k = snprintf(b, sizeof b, CHUNK "\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n");
    event(c, b, k);
    if (c->usage) {
        k = snprintf(b, sizeof b, CHUNK "\"choices\":[],\"usage\":{\"prompt_tokens\":21,\"completion_tokens\":%d,"
                     "\"total_tokens\":%d}}\n\n", c->sent, 21 + c->sent);
        event(c, b, k);
    }
    event(c, "data: [DONE]\n\n", 14);
    put(c, "0\r\n\r\n", 5);
    c->busy = 0; streams++;
}
static void act(conn *c, long long t) {          /* the due write of a busy connection */
    if (!c->stream) { c->busy = 0; reply(c, CHAT, sizeof CHAT - 1); return; }
    if (c->stream == 1) { c->stream = 2; put(c, SSE_HEAD, sizeof SSE_HEAD - 1); }
    do chunk(c); while (c->busy && !delay_ns);
    if (c->busy) q_add(&q[1], c, (c->due > t - delay_ns ? c->due : t) + delay_ns);
}
static int flag(const char *b, size_t n, const char *key) {   /* "key" : true */
    const char *p = memmem(b, n, key, strlen(key)), *e = b + n;
    if (!p) return 0;
    for (p += strlen(key); p < e && (*p == ' ' || *p == ':'); p++) ;
    return p + 4 <= e && !memcmp(p, "true", 4);
}
static void handle(conn *c, const char *path, const char *b, size_t n) {
    requests++;
    if (!strncmp(path, "/v1/models", 10)) { reply(c, MODELS, sizeof MODELS - 1); return; }
    if (!strncmp(path, "/v1/embeddings", 14)) { reply(c, EMB, emb_len); return; }
    if (!strncmp(path, "/_stats", 7)) {
        char s[160];
        int k = snprintf(s, sizeof s, "{\"requests\":%ld,\"streams\":%ld,\"aborted\":%ld,\"open\":%ld}",
                         requests, streams, aborted, open_conns);
        reply(c, s, k); return;
    }
    if (strncmp(path, "/v1/chat/completions", 20)) {
        put(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 45); return;
    }
    const char *m;
    c->stream = flag(b, n, "\"stream\"");
    c->usage = c->stream && flag(b, n, "\"include_usage\"");
    c->left = n_chunks; c->sent = 0; c->busy = 1;
    if (c->stream && (m = memmem(b, n, "\"max_tokens\"", 12)) && (m = memchr(m, ':', b + n - m)))
        if ((c->left = atoi(m + 1)) < 1) c->left = 1;
    long long t = now(); c->due = t;
    if (first_ns) q_add(&q[0], c, t + first_ns); else act(c, t);
}
/* Take one whole request from the in-buffer.  1: took one; 0: needs more; -1: bad */
static int take(conn *c) {
    char *e = c->in_len ? memmem(c->in, c->in_len, "\r\n\r\n", 4) : NULL, path[128] = "";
    if (!e) return c->in_len > 65536 ? -1 : 0;
    size_t head = e + 4 - c->in, clen = 0, used; int chunked = 0;
    *e = 0;
    for (char *l = strstr(c->in, "\r\n"); l; l = strstr(l + 2, "\r\n")) {
        if (!strncasecmp(l + 2, "content-length:", 15)) clen = strtoull(l + 17, 0, 10);
        else if (!strncasecmp(l + 2, "transfer-encoding: chunked", 26)) chunked = 1;
        else if (!strncasecmp(l + 2, "connection: close", 17)) c->closing = 1;
        else if (!strncasecmp(l + 2, "expect:", 7) && c->in_len == head) put(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    }
    sscanf(c->in, "%*15s %127s", path);
    *e = '\r';
    char *body = c->in + head;
    if (!chunked) {
        if (c->in_len < head + clen) return 0;
        used = head + clen;
    } else {                                     /* de-chunk in place, once it is whole */
        char *p = body, *end = c->in + c->in_len, *w;
        for (int pass = 0; pass < 2; pass++) for (p = w = body;;) {
            char *nl = memmem(p, end - p, "\r\n", 2);
            if (!nl) return 0;
            size_t sz = strtoull(p, 0, 16);
            if (nl + 2 + sz + 2 > end) return 0;
            if (pass) { memmove(w, nl + 2, sz); w += sz; clen = w - body; }
            p = nl + 2 + sz + 2;
            if (!sz) break;
        }
        used = p - c->in;
    }
    handle(c, path, body, clen);
    memmove(c->in, c->in + used, c->in_len - used); c->in_len -= used;
    return 1;
}
static void readable(conn *c) {
    for (;;) {
        if (c->in_cap - c->in_len < 8192) c->in = realloc(c->in, c->in_cap = c->in_cap ? c->in_cap * 2 : 16384);
        ssize_t n = recv(c->fd, c->in + c->in_len, c->in_cap - c->in_len - 1, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN)) { drop(c); return; }
        if (n < 0) break;
        c->in_len += n; c->in[c->in_len] = 0;
    }
    int r = 0;
    while (!c->busy && (r = take(c)) > 0) ;
    if (r < 0) { drop(c); return; }
    flush(c);
}
int main(int ac, char **av) {
    int port = 9100, o, one = 1;
    while ((o = getopt(ac, av, "p:n:d:t:")) > 0) {
        if (o == 'p') port = atoi(optarg);
        else if (o == 'n') n_chunks = atoi(optarg);
        else if (o == 'd') delay_ns = atof(optarg) * 1e6;
        else if (o == 't') first_ns = atof(optarg) * 1e6;
        else return 2;
    }
    struct rlimit rl; getrlimit(RLIMIT_NOFILE, &rl); rl.rlim_cur = rl.rlim_max; setrlimit(RLIMIT_NOFILE, &rl);
    signal(SIGPIPE, SIG_IGN);
    q[0].qn = q[0].qp = &q[0]; q[1].qn = q[1].qp = &q[1];
    emb_len = sprintf(EMB, "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":[");
    for (int i = 0; i < 64; i++) emb_len += sprintf(EMB + emb_len, "%s0.0%02d5", i ? "," : "", i);
    emb_len += sprintf(EMB + emb_len, "]}],\"model\":\"fake\",\"usage\":{\"prompt_tokens\":8,\"total_tokens\":8}}");
    int ls = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(ls, (void *)&a, sizeof a) || listen(ls, 4096)) { perror("bind"); return 1; }
    ep = epoll_create1(0);
    struct epoll_event ev = { .events = EPOLLIN }, evs[256];
    epoll_ctl(ep, EPOLL_CTL_ADD, ls, &ev);
    for (;;) {
        long long t = now(), wait = -1;
        for (int i = 0; i < 2; i++) {
            conn *c;
            while ((c = q[i].qn) != &q[i] && c->due <= t) { q_del(c); act(c, t); if (flush(c) == 0 && !c->busy && c->in_len) readable(c); }
            if ((c = q[i].qn) != &q[i] && (wait < 0 || c->due - t < wait)) wait = c->due - t;
        }
        struct timespec ts = { wait / 1000000000, wait % 1000000000 };
        int n = epoll_pwait2(ep, evs, 256, wait < 0 ? NULL : &ts, NULL);
        for (int i = 0; i < n; i++) {
            conn *c = evs[i].data.ptr;
            if (!c) {
                int fd;
                while ((fd = accept4(ls, 0, 0, SOCK_NONBLOCK)) >= 0) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    conn *k = calloc(1, sizeof *k); k->fd = fd; open_conns++;
                    struct epoll_event e = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = k };
                    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
                }
            } else if (evs[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) readable(c);
            else if (c->out_len) flush(c);
        }
    }
}
