class Request: ...

class Response:
    API_KEY: int
    API_VERSION: int
