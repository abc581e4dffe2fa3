// What a program may use of the library: everything marked SALIENCE_API, nothing else.
#pragma once

#if defined(_WIN32)
#define SALIENCE_API __declspec(dllexport)
#else
#define SALIENCE_API __attribute__((visibility("default")))
#endif
