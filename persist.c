/* SPDX-License-Identifier: MIT */
/*
 * persist: a variable that outlives the program, by MAP_FIXED.
 *
 *     memory before   | code | data |   text   | more data |
 *     memory after    | code | data | the file | more data |
 *
 *     echo hi | ./persist -write
 *     ./persist -read
 *
 * mmap(2), which calls MAP_FIXED dangerous; flock(2), setarch(8)
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* To experiment, change these lines, or use the options. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_SHARED | MAP_FIXED;
enum { LARGEST_PAGE = 65536 }; /* in bytes; many machines have 4096 */

/* MAP_FIXED replaces whole pages, so this variable fills whole pages. */
static _Alignas(LARGEST_PAGE) char text[LARGEST_PAGE] = "the initial value";

/* And this one has neighbours in its page. */
static _Alignas(LARGEST_PAGE) struct {
    char variable[32], neighbour[32], rest[LARGEST_PAGE - 64];
} crowded = {"I am mapped over", "I only live next door", ""};

/* This one says in two ways where its words are. */
static _Alignas(LARGEST_PAGE) struct note {
    char mark[16];       /* that it is a note of ours */
    size_t offset;       /* of the words, from the variable's beginning */
    const char *pointer; /* to the words */
    char words[LARGEST_PAGE - 16 - sizeof(size_t) - sizeof(char *)];
} note;
_Static_assert(sizeof(struct note) == LARGEST_PAGE, "whole pages");
static const char mark[] = "persist -pointer"; /* 16 letters */

static enum { READ, WRITE, POINTER, NOREPLACE, CLOBBER } task;
static char input[LARGEST_PAGE]; /* the whole of stdin */
static const char *path;
static volatile int fd;       /* the handlers of signals use it, too */
static void *variable = text; /* what becomes the file */

/* What undo() has to undo, if nothing is stored. */
static const char *volatile new_file; /* a file to remove, or NULL */
static volatile int filling;          /* an old file to empty again */

static void load(void);
static void save(void);
static size_t check_text(const char *copy);
static void follow(void);
static void remember(void);
static void noreplace(void);
static void clobber(void);
static void print_words(const char *from, size_t most);
static void read_input(void);
static void open_variable(void);
static void reserve_space(void);
static int open_or_create(int *created);
static int create(void);
static void own(int file);
static int has_its_name(int file);
static void undo(void);
static void end_by_signal(int number);
static void explain_faults(void);
static long long file_size(void);
static void parse_options(int argc, char *argv[]);
static void check_streams(void);
static void catch_signals(void (*handler)(int));
static void flush_stdout(void);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    check_streams();
    explain_faults();
    if (task == WRITE) read_input();

    const int needs_file = task != NOREPLACE && task != CLOBBER;
    if (needs_file) {
        open_variable();
        void *place = mmap(variable, LARGEST_PAGE, prot, flags, fd, 0);
        if (place == MAP_FAILED) err(1, "mmap over %p", variable);
        /* Without MAP_FIXED, the address is only a wish. */
        if (place != variable)
            errx(1, "mmap over %p: went elsewhere, to %p", variable, place);
    }

    switch (task) {
    case READ: load(); break;
    case WRITE: save(); break;
    case POINTER: follow(); break;
    case NOREPLACE: noreplace(); break;
    case CLOBBER: clobber(); break;
    }
    flush_stdout();
}

/* No read(): the text is there as soon as the file is mapped. */
static void load(void)
{
    static char copy[sizeof text];
    memcpy(copy, text, sizeof text); /* it might change while it is printed */
    const size_t length = check_text(copy);
    fwrite(copy, 1, length, stdout);
}

/* No write(): these are stores to a variable. The old text goes, the last byte
   first, and then the new one comes: a run that is killed between two stores
   leaves a part of one text, and never of both. */
static void save(void)
{
    volatile char *place = text; /* keeps the stores in this order */
    const size_t old_length = check_text(text);
    new_file = NULL; /* from now on nothing is undone */
    filling = 0;
    for (size_t i = old_length; i > 0; i--) place[i - 1] = '\0';
    for (size_t i = 0; input[i] != '\0'; i++) place[i] = input[i];
}

/* Behind a text of ours there are zeros up to the end. */
static size_t check_text(const char *copy)
{
    const size_t length = strnlen(copy, sizeof text);
    size_t zeros = 0;
    while (length + zeros < sizeof text && copy[length + zeros] == '\0')
        zeros++;
    if (zeros == 0 || length + zeros < sizeof text)
        errx(1, "%s: not a text of ours", path);
    return length;
}

/* The words of an earlier run, by both ways that it has noted. */
static void follow(void)
{
    static const char nothing[sizeof note];
    if (memcmp(&note, nothing, sizeof note) == 0) {
        remember();
        return;
    }
    const size_t offset = note.offset;
    const char *pointer = note.pointer;
    const int has_mark = memcmp(note.mark, mark, sizeof note.mark) == 0;
    if (!has_mark || offset >= sizeof note)
        errx(1, "%s: not a variable of ours", path);

    printf("the variable is at %p\n", (void *)&note);
    printf("by the offset, %zu: ", offset);
    print_words((const char *)&note + offset, sizeof note - offset);
    printf("by the pointer, %p:\n", (const void *)pointer);
    flush_stdout();
    print_words(pointer, sizeof note.words);
}

/* The first run: a later one finds the words by the offset, but by the pointer
   only if the variable has the same address again. */
static void remember(void)
{
    printf("the variable is at %p\n", (void *)&note);
    printf("noted: the offset %zu, the pointer %p\n",
           offsetof(struct note, words), (void *)note.words);
    flush_stdout();  /* nothing is stored if nobody can be told */
    new_file = NULL; /* and from now on nothing is undone */
    filling = 0;
    sprintf(note.words, "words of process %d", getpid());
    note.offset = offsetof(struct note, words);
    note.pointer = note.words;
    memcpy(note.mark, mark, sizeof note.mark);
}

/* The variable's pages are in use: this mmap() fails, and they stay. */
static void noreplace(void)
{
    void *place =
        mmap(text, sizeof text, prot,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (place == MAP_FAILED)
        err(1, "mmap over the variable at %p", (void *)text);
    if (place != text) /* Linux before 4.17 does not know the flag */
        errx(1, "mmap over the variable at %p: went elsewhere, to %p",
             (void *)text, place);
    printf("the variable at %p is replaced\n", place);
}

/* Asks for the bytes of one variable, and loses its neighbour, too. */
static void clobber(void)
{
    printf("before: \"%s\", \"%s\"\n", crowded.variable, crowded.neighbour);
    void *place = mmap(crowded.variable, sizeof crowded.variable, prot,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (place == MAP_FAILED) err(1, "mmap");
    printf("after:  \"%s\", \"%s\"\n", crowded.variable, crowded.neighbour);
    printf("asked to map %zu bytes, mmap() has replaced a page of %ld\n",
           sizeof crowded.variable, sysconf(_SC_PAGESIZE));
}

/* What a file says may be anything: of a long text, the beginning. */
static void print_words(const char *from, size_t most)
{
    char words[60 + 1] = "";
    if (most > 60) most = 60;
    for (size_t i = 0; i < most && from[i] != '\0'; i++) {
        const unsigned char c = from[i];
        words[i] = isprint(c) ? c : '.';
    }
    printf("\"%s\"\n", words);
}

/* All of it, before anything is changed: what is refused leaves no file. */
static void read_input(void)
{
    const size_t length = fread(input, 1, sizeof input, stdin);
    if (ferror(stdin)) err(1, "stdin");
    if (length == sizeof input) errx(1, "stdin: longer than the variable");
    if (memchr(input, '\0', length)) errx(1, "stdin: holds a NUL byte");
}

/* Of several that come at once one creates the file, and all wait for its lock.
   Who had the lock may have removed the file: then open what is there now. */
static void open_variable(void)
{
    int created;
    signal(SIGXFSZ, SIG_IGN); /* a limit is an error, too */
    atexit(undo);
    catch_signals(end_by_signal);
    for (;;) {
        fd = open_or_create(&created);
        file_size(); /* which only a regular file has */
        if (flock(fd, task == READ ? LOCK_SH : LOCK_EX) == -1)
            err(1, "%s: flock", path);
        if (created) own(fd); /* if create() found it locked by another */
        if (has_its_name(fd)) break;
        new_file = NULL;
        close(fd);
    }

    if (task != READ) reserve_space();
    if (file_size() != LARGEST_PAGE)
        errx(1, "%s: not a file of %d bytes", path, LARGEST_PAGE);
}

/* A full disk is an error here, and not SIGBUS later. The size is set at once:
   who is killed now leaves zeros, which are an empty text. */
static void reserve_space(void)
{
    const long long size = file_size();
    if (size != 0 && size != LARGEST_PAGE) return; /* it is not ours */
    if (size == 0) {
        filling = 1;
        if (ftruncate(fd, LARGEST_PAGE) == -1) err(1, "%s: ftruncate", path);
    }
    errno = posix_fallocate(fd, 0, LARGEST_PAGE);
    if (errno != 0) err(1, "%s", path);
}

static int open_or_create(int *created)
{
    const int access = task == READ ? O_RDONLY : O_RDWR;
    *created = 0;
    for (;;) {
        int file = open(path, access | O_NONBLOCK); /* waits at no FIFO */
        if (file != -1) return file;
        if (errno != ENOENT || task == READ) err(1, "%s", path);
        file = create();
        if (file != -1) {
            *created = 1;
            return file;
        }
        if (errno != EEXIST) err(1, "%s", path);
        /* Somebody was faster: open that. */
    }
}

/* A signal waits until the file is known to be ours. */
static int create(void)
{
    struct stat status;
    sigset_t all, before;
    if (lstat(path, &status) == 0 && S_ISLNK(status.st_mode))
        errx(1, "%s: a link to nowhere", path);

    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    const int file = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (file != -1) own(file);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return file;
}

/* A new file is ours to remove, but not if another was the first to lock it:
   that one may have stored a text. */
static void own(int file)
{
    struct stat status;
    if (flock(file, LOCK_EX | LOCK_NB) == -1) return;
    if (fstat(file, &status) == -1) return;
    if (status.st_size == 0) {
        fd = file;
        new_file = path;
    }
}

static int has_its_name(int file)
{
    struct stat opened, named;
    if (fstat(file, &opened) == -1) return 0;
    if (stat(path, &named) == -1) return 0;
    return opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

/* Nothing was stored: a new file goes, and an old one is as empty as before. */
static void undo(void)
{
    if (new_file) {
        if (has_its_name(fd)) unlink(new_file);
    } else if (filling) {
        if (ftruncate(fd, 0) == -1) return; /* zeros: an empty text */
    }
}

static void end_by_signal(int number)
{
    undo();
    raise(number);
}

/* Returning runs the instruction again, and because of SA_RESETHAND it then
   kills. The fault is never inside of printf(), so stdio works here. */
static void explain_fault(int number, siginfo_t *info, void *context)
{
    (void)context;
    const char *rule;
    if (number == SIGBUS)
        rule = "SIGBUS, no byte of the file is there";
    else if (info->si_code == SEGV_ACCERR)
        rule = "SIGSEGV, protection forbids it";
    else
        rule = "SIGSEGV, nothing is mapped there";
    fprintf(stderr, "persist: %s: %p\n", rule, info->si_addr);
}

static void explain_faults(void)
{
    const struct sigaction action = {.sa_sigaction = explain_fault,
                                     .sa_flags = SA_SIGINFO | SA_RESETHAND};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
}

static long long file_size(void)
{
    struct stat status;
    if (fstat(fd, &status) == -1) err(1, "%s", path);
    if (!S_ISREG(status.st_mode)) errx(1, "%s: not a regular file", path);
    return status.st_size;
}

/* The rest is alike in every program: options, and streams that are checked. */

static void usage(void)
{
    puts("usage: persist [-read | -write | -pointer | -noreplace | -clobber]\n"
         "               [-file=F]\n"
         "Keep a variable in F (.persistent_data).\n"
         "  -read       print the variable (default)\n"
         "  -write      set it to what comes from stdin\n"
         "  -pointer    keep an offset and a pointer in F "
         "(.persistent_pointer),\n"
         "              or follow both, if they are there\n"
         "  -noreplace  use MAP_FIXED_NOREPLACE, which replaces nothing\n"
         "  -clobber    map over a variable that has neighbours in its page\n"
         "example: echo hi | persist -write && persist");
    flush_stdout();
    exit(0);
}

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {
        {"clobber", 0, NULL, 'c'}, {"file", 1, NULL, 'f'},
        {"help", 0, NULL, 'h'},    {"noreplace", 0, NULL, 'n'},
        {"pointer", 0, NULL, 'p'}, {"read", 0, NULL, 'r'},
        {"write", 0, NULL, 'w'},   {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'c': task = CLOBBER; break;
        case 'f': path = optarg; break;
        case 'h': usage(); break;
        case 'n': task = NOREPLACE; break;
        case 'p': task = POINTER; break;
        case 'r': task = READ; break;
        case 'w': task = WRITE; break;
        case '?': exit(2);
        }
    if (argc > optind) errx(2, "%s: not an option; try --help", argv[optind]);

    if (task == READ) prot = PROT_READ; /* the file may be read-only */
    if (task == POINTER) variable = &note;
    if (path == NULL && task == POINTER) path = ".persistent_pointer";
    if (path == NULL) path = ".persistent_data";
    /* Here, because check_streams() makes a closed stdin an empty one. */
    if (task == WRITE && fcntl(STDIN_FILENO, F_GETFD) == -1) err(1, "stdin");
}

/* With stdout closed, open() would return 1, and printf() fill the file.
   A closed stdin is an empty one. */
static void check_streams(void)
{
    if (fcntl(STDOUT_FILENO, F_GETFD) == -1) err(1, "stdout");
    if (fcntl(STDERR_FILENO, F_GETFD) == -1) err(1, "stderr");
    if (fcntl(STDIN_FILENO, F_GETFD) != -1) return;
    if (open("/dev/null", O_RDONLY) == -1) err(1, "/dev/null");
}

/* The end by a signal is cleaned up after. What was ignored at the start, as
   SIGHUP is by nohup(1), stays ignored. */
static void catch_signals(void (*handler)(int))
{
    const int signals[] = {SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM};
    const struct sigaction action = {.sa_handler = handler,
                                     .sa_flags = SA_RESETHAND};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction before;
        sigaction(signals[i], NULL, &before);
        if (before.sa_handler != SIG_IGN) sigaction(signals[i], &action, NULL);
    }
}

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}
